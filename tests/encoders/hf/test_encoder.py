"""Every family against transformers' own pipeline, on checkpoints made here."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.family import FAMILIES, read_facts
from brivl_search.encoders.hf.towers import features
from tests.support.tiny_hf import (
    KINDS,
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    load,
    photos,
)


def reference(folder: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and texts through transformers' own processor and whole model, unit length."""
    import transformers

    model = getattr(transformers, FAMILIES[kind].model_class).from_pretrained(folder).eval()
    pictures = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    lengths: dict[str, Any] = {"padding": True, "truncation": True, "max_length": read_facts(folder).max_length}
    if kind.startswith("siglip"):
        lengths["padding"] = "max_length"
    images, texts = [], []
    with torch.inference_mode():
        for data in photos():
            found = pictures(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")
            images.append(features(model.get_image_features(**found)))
        for text in TEXTS:
            ids = tokenizer([text], return_tensors="pt", **lengths)
            if kind.startswith("siglip"):
                ids.pop("attention_mask", None)
            ids.pop("token_type_ids", None)
            texts.append(features(model.get_text_features(**ids)))
    return tuple(torch.nn.functional.normalize(torch.cat(one), dim=-1).numpy() for one in (images, texts))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers_own_pipeline(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = load(checkpoints[kind])
    images, texts = reference(checkpoints[kind], kind)
    found_texts = encoder.encode_texts(TEXTS)
    found_images = encoder.encode_images(np.stack([load_pixels(data, encoder.pixels) for data in photos()]))
    for found, wanted_vectors in ((found_texts, texts), (found_images, images)):
        assert found.dtype == np.float32 and found.shape == wanted_vectors.shape
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert ((found * wanted_vectors).sum(1) > 0.999).all()
        # and the vectors differ from each other by far more than from the reference
        others = (wanted_vectors @ wanted_vectors.T)[~np.eye(len(found), dtype=bool)]
        assert others.max() < 0.99


def test_text_is_prepared_as_each_family_was_trained(checkpoints: dict[str, Path]) -> None:
    assert {kind: read_facts(checkpoints[kind]).max_length for kind in KINDS} == {
        "clip": 16, "chinese_clip": 52, "altclip": 18, "metaclip_2": 20, "siglip": 16, "siglip2": 16
    }  # fmt: skip
    chinese = load(checkpoints["chinese_clip"])
    assert np.array_equal(*(chinese.encode_texts([text]) for text in ("“狗” Dog", '"狗" dog')))
    siglip = load(checkpoints["siglip"])
    seen = []
    tower = siglip.text_tower
    tower.get_text_features = lambda original=tower.get_text_features, **inputs: (
        seen.append(inputs),
        original(**inputs),
    )[1]
    siglip.encode_texts(["Dog", "a red dog"])
    assert set(seen[0]) == {"input_ids"} and seen[0]["input_ids"].shape == (2, 16)  # padded to the end, padding seen
    # a text's vector does not depend on what it is embedded with
    for kind in KINDS:
        encoder = load(checkpoints[kind])
        assert np.allclose(encoder.encode_texts(TEXTS)[:1], encoder.encode_texts(TEXTS[:1]), atol=1e-5)
    long = "dog " * 80
    assert chinese.cut_tokens([long, "dog"]) == [80 + 2 - 52, 0]
    assert np.array_equal(chinese.encode_texts([long]), chinese.encode_texts(["dog " * 50]))
    assert chinese.encode_texts([]).shape == (0, 24)


def test_siglip_with_the_sentencepiece_tokenizer_of_its_first_models(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentencepiece
    import transformers

    folder = shutil.copytree(checkpoints["siglip"], tmp_path / "siglip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in TEXTS] * 4),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=-1,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16)
    tokenizer.save_pretrained(folder)
    encoder = load(folder)
    assert type(encoder.tokenizer).__name__ == "SiglipTokenizer"
    wanted_ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        reference = features(encoder.text_tower.get_text_features(input_ids=wanted_ids["input_ids"]))
    assert np.allclose(encoder.encode_texts(TEXTS), torch.nn.functional.normalize(reference, dim=-1).numpy(), atol=1e-5)
    assert np.array_equal(encoder.encode_texts(["a red dog!"]), encoder.encode_texts(["A Red Dog"]))


def test_bfloat16_stays_near(checkpoints: dict[str, Path]) -> None:
    half = load_encoder(f"hf:{checkpoints['siglip']}", device="cpu", precision="bf16")
    exact = load(checkpoints["siglip"]).encode_texts(TEXTS)
    close = (half.encode_texts(TEXTS) * exact).sum(1)
    assert (close > 0.99).all() and not np.array_equal(half.encode_texts(TEXTS), exact)
