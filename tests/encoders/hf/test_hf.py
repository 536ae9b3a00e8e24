"""Models of transformers by name: every class against transformers' own pipeline, on checkpoints made here."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.corpus.patches import grid, square_side, unpack
from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.family import FAMILIES, normalisation, pixel_spec, read_facts
from brivl_search.encoders.hf.towers import features
from tests.support.tiny_hf import (
    KINDS,
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    load,
    photo,
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


@pytest.mark.parametrize("resize", ["crop", "squash", "patches"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (1499, 1001), (301, 1203)])
def test_pixels_are_the_processors_own(resize: str, width: int, height: int) -> None:
    """At the real sizes. Where a large picture is halved first (by libjpeg, or by whole pixels) some pixels differ: by
    less than one grey level of 255 on average. An odd side must not shift it."""
    import transformers

    data = photo(width, height, (1, 0.9, 0.8), "JPEG")
    plain = {"do_rescale": False, "do_normalize": False}
    square = {"height": 224, "width": 224}
    processor = {
        "crop": lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=square, **plain),
        "squash": lambda: transformers.SiglipImageProcessor(size=square, **plain),
        "patches": lambda: transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=196, **plain),
    }[resize]()
    found = processor(images=Image.open(io.BytesIO(data)), return_tensors="np")
    if resize == "patches":
        spec = PixelSpec(square_side(16, 196), "patches", "bilinear", patch=16, max_patches=196)
        tiles, shapes = unpack(load_pixels(data, spec)[None], 16, 196)
        assert shapes.tolist() == found["spatial_shapes"].tolist()
        mine, reference = tiles[0], found["pixel_values"][0]
    else:
        mine = load_pixels(data, PixelSpec(224, resize, "bicubic"))  # type: ignore[arg-type]
        reference = found["pixel_values"][0].transpose(1, 2, 0)
    apart = np.abs(mine.astype(np.float32) - reference)
    halved = max(width, height) > 1000
    assert apart.mean() < (1 if halved else 0.05) and np.percentile(apart, 99) <= (3 if halved else 1)
    assert reference.std() > 20  # there is something to differ


def test_patches_are_as_many_as_transformers_makes() -> None:
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 9000), (9000, 1), (224, 224), *np.exp(rng.uniform(0, 9, (200, 2))).astype(int).tolist()]
    for height, width in sizes:
        for patch, most in ((16, 256), (16, 1024), (14, 300)):
            rows, columns = grid(height, width, patch, most)
            assert (rows * patch, columns * patch) == get_image_size_for_max_num_patches(height, width, patch, most)
            assert 1 <= rows * columns <= most


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_patches_of_every_mode_of_picture(mode: str) -> None:
    spec = PixelSpec(square_side(8, 30), "patches", patch=8, max_patches=30)
    grey = Image.linear_gradient("L").resize((50, 21))
    picture = grey if mode == "L" else grey.convert(mode) if mode != "I;16" else grey.convert("I").convert("I;16")
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    tiles, shapes = unpack(load_pixels(buffer.getvalue(), spec)[None], 8, 30)
    assert shapes.tolist() == [list(grid(21, 50, 8, 30))] and tiles.any()


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_patches_of_pictures_that_lie_on_their_side(orientation: int) -> None:
    picture = Image.open(io.BytesIO(photo(120, 40, (1, 0.5, 0.2), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, upright = io.BytesIO(), io.BytesIO()
    picture.save(stored, "PNG", exif=exif)
    turn = {3: "ROTATE_180", 6: "ROTATE_270", 7: "TRANSVERSE"}.get(orientation)
    (picture.transpose(Image.Transpose[turn]) if turn else picture).save(upright, "PNG")
    spec = PixelSpec(square_side(8, 30), "patches", patch=8, max_patches=30)
    assert np.array_equal(load_pixels(stored.getvalue(), spec), load_pixels(upright.getvalue(), spec))
    assert unpack(load_pixels(stored.getvalue(), spec)[None], 8, 30)[1].tolist() in ([[3, 9]], [[9, 3]])


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


def test_defaults_are_transformers_own() -> None:
    """config.json leaves out what is at its default, so we must know the defaults."""
    import transformers

    for kind, family in FAMILIES.items():
        config = getattr(transformers, family.model_class).config_class()
        assert config.model_type == kind
        assert config.text_config.max_position_embeddings == family.positions
        dim = config.text_config.projection_size if "projection_size" in family.dim_key else config.projection_dim
        assert dim == family.dim


def test_processors_that_no_square_can_stand_for() -> None:
    clip = {**FAMILIES["clip"].pictures}
    assert pixel_spec({**clip, "size": 256, "crop_size": 224}) == PixelSpec(224, "crop", "bicubic", short_side=256)
    for change, what in (
        ({"do_resize": False}, "do_resize"),
        ({"resample": 0}, "resample is 0"),
        ({"do_center_crop": False}, "without a crop"),
        ({"size": {"height": 224, "width": 192}}, "not a square"),
        ({"size": 200}, "short_side"),
    ):
        with pytest.raises(ValueError, match=what):
            pixel_spec({**clip, **change})
    mean, std = normalisation({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [-2, 2])
    mean, std = normalisation({"do_normalize": False})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [0, 1])
