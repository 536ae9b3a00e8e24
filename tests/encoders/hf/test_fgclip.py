"""FG-CLIP 2 from its published layout, against an implementation that is written plainly from the description."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.family import read_facts
from brivl_search.encoders.hf.fgclip import FgClipEncoder
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny_fgclip import KEPT, LONG, SHORT, Plain, make_fgclip, patches_of
from tests.support.tiny_hf import edit_json, make_hf, photo

SHORTS = ["a red dog", "草地上的狗", "Dog!", "x"]
LONGS = ["a red dog on grass with a blue circle", "一只在草地上的狗" * 3, "dog " * 90]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fgclip(tmp_path_factory.mktemp("hf") / "fgclip")


def load(folder: Path, settings: str = "", **options: Any) -> FgClipEncoder:
    encoder = load_encoder(f"hf:{folder}{settings}", device="cpu", precision="fp32", **options)
    assert isinstance(encoder, FgClipEncoder)
    return encoder


def plain_texts(folder: Path, texts: list[str], long: bool | None = None) -> np.ndarray:
    """The vectors of texts by definition; a text of more than SHORT tokens is long, unless `long` says so."""
    from transformers import AutoTokenizer

    model, tokenizer = Plain(folder), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    rows = []
    for text in texts:
        walk = len(tokenizer(text.lower())["input_ids"]) > SHORT if long is None else long
        ids = tokenizer(text.lower(), truncation=True, max_length=LONG if walk else SHORT)["input_ids"]
        rows.append(model.text(ids, walk).numpy())
    return np.stack(rows)


def test_both_walks_equal_the_plain_model(folder: Path) -> None:
    encoder = load(folder)
    texts = [text for pair in zip(SHORTS, LONGS, strict=False) for text in pair] + SHORTS[3:]  # mixed
    found = encoder.encode_texts(texts)
    assert found.dtype == np.float32 and found.shape == (7, 32) and encoder.dim == 32
    np.testing.assert_allclose(found, plain_texts(folder, texts), atol=2e-5)
    assert (found @ found.T)[~np.eye(7, dtype=bool)].max() < 0.99
    np.testing.assert_allclose(encoder.encode_texts(texts[1]), found[1:2], atol=2e-5)  # whatever stands beside it
    np.testing.assert_allclose(encoder.encode_queries(texts), found, atol=1e-6)
    assert encoder.encode_texts([]).shape == (0, 32)
    assert encoder.cut_tokens(["dog " * 90, *SHORTS])[1:] == [0, 0, 0, 0]


@pytest.mark.parametrize("walk", ["short", "long"])
def test_a_walk_in_the_name_is_for_all_texts(folder: Path, walk: str) -> None:
    encoder = load(folder, f"?walk={walk}")
    texts = [SHORTS[0], LONGS[0]]
    np.testing.assert_allclose(encoder.encode_texts(texts), plain_texts(folder, texts, walk == "long"), atol=2e-5)
    free = load(folder).encode_texts(texts)
    assert (encoder.encode_texts(texts) * free).sum(1)[1 if walk == "short" else 0] < 0.99
    assert (tokens := len(encoder.tokenizer("dog " * 90)["input_ids"])) > LONG
    assert encoder.cut_tokens(["dog " * 90]) == [tokens - (SHORT if walk == "short" else LONG)]
    cut = encoder.cut_tokens(["dog " * 90])[0] - load(folder).cut_tokens(["dog " * 90])[0]
    assert cut == (LONG - SHORT if walk == "short" else 0)


def test_pictures_of_many_shapes_equal_the_plain_model(folder: Path) -> None:
    encoder, model = load(folder), Plain(folder)
    shapes = [
        (40, 40),
        (97, 61),
        (150, 40),
        (100, 120),
        (120, 170),
        (250, 200),
        (300, 260),
        (64, 400),
    ]  # all five steps
    assert {patches_of(*shape) for shape in shapes} == {128, 256, 576, 784, 1024}
    files = [photo(*shape, (1, 0.5, 0.2), "PNG", at) for at, shape in enumerate(shapes)]
    found = encoder.encode_images(np.stack([load_pixels(data, encoder.pixels) for data in files]))
    wanted = np.stack(
        [
            model.picture(Image.open(io.BytesIO(data)).convert("RGB"), patches_of(*shape)).numpy()
            for data, shape in zip(files, shapes, strict=True)
        ]
    )
    np.testing.assert_allclose(found, wanted, atol=3e-3)  # grey levels are rounded to bytes
    assert ((found * wanted).sum(1) > 0.9999).all()
    np.testing.assert_allclose(encoder.encode_images(files[1]), found[1:2], atol=1e-5)


def test_fewer_patches_by_the_name(folder: Path) -> None:
    encoder, model = load(folder, "?patches=200"), Plain(folder)
    assert encoder.pixels.patch_steps == (128, 200) and encoder.pixels.max_patches == 200
    data = photo(250, 200, (1, 0.5, 0.2), "PNG")
    wanted = model.picture(Image.open(io.BytesIO(data)), 200).numpy()
    assert (encoder.encode_images(data) @ wanted).item() > 0.9999
    siglip = load_encoder(f"hf:{make_hf(folder.parent / 'siglip2', 'siglip2')}?patches=9", device="cpu")
    assert siglip.pixels.max_patches == 9 and siglip.encode_images(data).shape == (1, 32)


def test_the_fingerprint_holds_the_walk_and_the_patches(folder: Path, tmp_path: Path) -> None:
    names = ["", "?walk=short", "?walk=long", "?patches=256", "?walk=long&patches=256"]
    prints = {name: load(folder, name).fingerprint for name in names}
    assert len(set(prints.values())) == len(names)
    assert load(folder, "?patches=256&walk=long").fingerprint == prints["?walk=long&patches=256"]
    assert load(folder, "?patches=256&walk=long").name.endswith("?walk=long&patches=256")
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["keep_len"] = KEPT + 1
    edit_json(other / "config.json", text_config=config["text_config"])
    assert load(other).fingerprint != prints[""]


def test_defaults_are_the_published_ones(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    for key in ("max_position_embeddings", "longtext_len", "keep_len", "projection_size"):
        del text[key]
    del vision["patch_size"]
    edit_json(other / "config.json", text_config=text, vision_config=vision)
    edit_json(other / "preprocessor_config.json", patch_size=16)
    facts = read_facts(other)
    assert (facts.max_length, facts.long_length, facts.dim) == (64, 196, 32)
    assert (facts.pixels.patch, facts.pixels.max_patches, facts.pixels.interpolation) == (16, 1024, "bilinear")
    assert facts.pixels.patch_steps == (128, 256, 576, 784, 1024)
    from brivl_search.encoders.hf.walks import siglip2_config

    config = siglip2_config(other)
    assert (config.text_config.keep_len, config.text_config.longtext_len) == (20, 196)


def test_its_program_code_never_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIVL_SEARCH_TRUST_REMOTE_CODE", "1")
    encoder = load(folder)
    encoder.encode_texts(["dog", LONGS[0]])
    encoder.warm_up()
    assert not (folder / "it-ran").exists()
    assert not hasattr(encoder.image_tower, "text_model") and not hasattr(encoder.text_tower, "vision_model")


def without(folder: Path, target: Path, *dropped: str) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    kept = {name: one for name, one in load_file(folder / "model.safetensors").items() if not name.startswith(dropped)}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    headless = without(folder, tmp_path / "headless", "longtext_head", "text_model.embeddings.position_embedding_res")
    with pytest.raises(EncoderError, match=r"lacks 3 tensors of its text tower, such as longtext_head\.bias: downl"):
        load(headless).encode_texts("dog")
    assert load(headless).encode_images(photo(40, 40, (1, 1, 1), "PNG")).shape == (1, 32)
    assert load(without(folder, tmp_path / "only", "box", "dense")).encode_texts("dog").shape == (1, 32)
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5000])
    with pytest.raises(EncoderError, match="cannot be loaded as Siglip2Model"):
        load(cut).encode_texts("dog")
    for name, message in (
        ("model.safetensors", "has no weights: neither model.safetensors nor"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
    ):
        missing = shutil.copytree(folder, tmp_path / f"without-{name}")
        (missing / name).unlink()
        with pytest.raises(EncoderError, match=message):
            load(missing)
    config = json.loads((folder / "config.json").read_text())
    for key, value, message in (
        ("longtext_len", SHORT, "longtext_len 16 is to be more than the 16 positions"),
        ("keep_len", 99, "keep_len 99 between 0 and it"),
        ("projection_size", 16, "long texts would get vectors of 32 numbers, and short ones of 16"),
    ):
        bad = shutil.copytree(folder, tmp_path / key)
        edit_json(bad / "config.json", text_config={**config["text_config"], key: value})
        with pytest.raises(EncoderError, match=message):
            load(bad)


def test_settings_of_other_models_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="walk=fast: give short or long, or leave it out"):
        load(folder, "?walk=fast")
    with pytest.raises(UsageError, match="has no prompts: leave out query_prompt"):
        load(folder, "?query_prompt=query")
    for value, message in (("0", "a whole number from 1 on"), ("5000", "give at most 4096")):
        with pytest.raises(UsageError, match=message):
            load(folder, f"?patches={value}")
    clip = make_hf(tmp_path / "clip", "clip")
    with pytest.raises(UsageError, match="reads all texts in one way: leave out walk"):
        load_encoder(f"hf:{clip}?walk=long")
    with pytest.raises(UsageError, match="takes pictures of one size: leave out patches"):
        load_encoder(f"hf:{clip}?patches=9")


def test_training_refuses_it(folder: Path) -> None:
    from train.model.kinds.hf import HfKind
    from train.recipe import Training

    with pytest.raises(UsageError, match="FG-CLIP 2 cannot be trained here, it reads texts in two ways: set init"):
        HfKind(load(folder), Training.model_construct())
