"""Every kind of model against open_clip's own loader, transforms and tokenizer, on models made here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import load_pixels
from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders import load_encoder
from brivl_search.encoders.open_clip.language import language
from tests.support.tiny_hf import TEXTS, photo, photos
from tests.support.tiny_open_clip import (
    KINDS,
    for_open_clip,
    load,
    models_fixture,  # noqa: F401 - the fixture `models`
)

open_clip = pytest.importorskip("open_clip")


@pytest.mark.parametrize("kind", KINDS)
def test_equals_open_clips_own_pipeline(models: dict[str, Path], kind: str) -> None:
    own = for_open_clip(models[kind])
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{own}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{own}")
    model.eval()
    with torch.inference_mode():
        pictures = torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in photos()])
        images = model.encode_image(pictures, normalize=True).numpy()
        texts = []
        for text in TEXTS:
            if kind == "nllb_siglip":
                tokenizer.tokenizer.src_lang = "zho_Hans" if text == "草地上的狗" else "eng_Latn"
            texts.append(model.encode_text(tokenizer([text]), normalize=True)[0].numpy())
    encoder = load(models[kind])
    for found, wanted in ((encoder.encode_images(photos()), images), (encoder.encode_texts(TEXTS), np.stack(texts))):
        assert found.dtype == np.float32 and found.shape == wanted.shape == (len(wanted), encoder.dim)
        assert ((found * wanted).sum(1) > 0.9999).all()
        others = (wanted @ wanted.T)[~np.eye(len(wanted), dtype=bool)]
        assert others.max() < 0.9999  # the vectors differ from each other
    # and without the other half of the model
    assert not hasattr(encoder.image_tower, "text") and not hasattr(encoder.image_tower, "transformer")
    assert not hasattr(encoder.text_tower, "visual")


def test_the_centre_is_cut_as_torchvision_does() -> None:
    """Of an odd number of pixels, one side loses one more: torchvision makes the start even."""
    transform = open_clip.transform.image_transform(40, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    for width in (41, 43, 45, 47):
        data = photo(width, 40, (1, 1, 1), "PNG", width)
        wanted = (transform(Image.open(io.BytesIO(data))) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(load_pixels(data, PixelSpec(40, "crop", "bicubic", centre="even")), wanted)
    with pytest.raises(ValueError, match="centre"):
        PixelSpec(40, "squash", centre="even")
    assert PixelSpec.from_dict(PixelSpec(40, "crop", centre="even").to_dict()).centre == "even"
    assert "centre" not in PixelSpec(40, "crop").to_dict()  # fingerprints of other encoders stay


def test_language_by_script() -> None:
    found = {
        text: language(text) for text in ("a dog", "草地上的狗", "草地上的馬與車", "犬が走る", "개", "собака", "123!")
    }
    assert list(found.values()) == [
        "eng_Latn", "zho_Hans", "zho_Hant", "jpn_Jpan", "kor_Hang", "rus_Cyrl", "eng_Latn"
    ]  # fmt: skip
    assert language("iPhone 手机") == "zho_Hans"


def test_nllb_marks_each_text_of_a_batch(models: dict[str, Path]) -> None:
    encoder = load(models["nllb_siglip"])
    words = encoder.tokens.words
    ids = encoder.tokens(["dog", "狗", "dog", "ใบ"])
    firsts = [words.convert_ids_to_tokens(int(row[0])) for row in ids]
    assert firsts == ["eng_Latn", "zho_Hans", "eng_Latn", "eng_Latn"]  # this tokenizer has no Thai
    assert np.allclose(encoder.encode_texts(["dog", "狗"])[:1], encoder.encode_texts(["dog"]), atol=1e-5)


def test_long_texts_and_unknown_words(models: dict[str, Path]) -> None:
    long = "dog " * 40
    for kind in ("vit", "xlm_roberta", "clipa"):
        encoder = load(models[kind])
        assert encoder.cut_tokens([long, "dog"]) == [40 + 2 - 24, 0]
        assert np.array_equal(encoder.encode_texts(long), encoder.encode_texts("dog " * 22))
        assert encoder.encode_texts([]).shape == (0, 24) and encoder.cut_tokens([]) == []
    assert load(models["vit"]).unknown_words(["ᚠ dog"]) == [[]]  # bytes
    assert load(models["xlm_roberta"]).unknown_words(["ᚠ dog", "dog"]) == [["ᚠ"], []]


@pytest.mark.parametrize("kind", ["vit", "xlm_roberta", "coca"])
def test_bfloat16_stays_near(models: dict[str, Path], kind: str) -> None:
    half = load_encoder(f"open_clip:{models[kind]}", device="cpu", precision="bf16")
    exact = load(models[kind])
    for found, wanted in (
        (half.encode_texts(TEXTS), exact.encode_texts(TEXTS)),
        (half.encode_images(photos()), exact.encode_images(photos())),
    ):
        assert ((found * wanted).sum(1) > 0.98).all() and not np.array_equal(found, wanted)
