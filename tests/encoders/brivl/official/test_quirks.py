"""What the published code does otherwise than one would, one by one, and the corrected mode."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.corpus.pixels import sample_bilinear
from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.boxes import BoxFile
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.official import checkpoint as official
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint, published_config
from brivl_search.encoders.brivl.official.convert import corrected
from tests.support.official import (
    TEXTS,
    Reference,
    apart,
    photo,
    tiny_fixture,  # noqa: F401 - the fixture `tiny`
)


def test_quirk_bert_sees_the_padding(tiny: tuple[Path, Reference]) -> None:
    """The vector depends on the length texts are padded to; the corrected mode's does not."""
    path, reference = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    ids = encoder.tokenizer.ids(TEXTS)
    assert apart(encoder.encode_texts(TEXTS), reference.texts(ids)) < 1e-5
    assert apart(encoder.encode_texts(TEXTS[3:]), reference.texts(ids)[3:]) < 1e-5  # alone as in a batch
    masked = BriVLEncoder(_with(OfficialCheckpoint(str(path)), corrected), device="cpu", precision="fp32")
    assert apart(masked.encode_texts(TEXTS), reference.texts(ids)) > 1e-3


def test_quirk_pictures_shrink_without_antialiasing() -> None:
    spec = PixelSpec(96, antialias=False)
    for seed, size in ((0, (300, 180)), (1, (96, 96)), (2, (40, 333))):
        data = photo(seed, size)
        whole = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32)).permute(2, 0, 1)[None]
        want = F.interpolate(whole, (96, 96), mode="bilinear", align_corners=False, antialias=False)[0]
        got = decode(data, spec).pixels
        assert apart(got, want.permute(1, 2, 0).numpy()) <= 0.5 + 1e-3  # rounded to a grey level, nothing else
    smooth = decode(photo(0), PixelSpec(96)).pixels.astype(float)
    assert np.abs(smooth - decode(photo(0), spec).pixels).mean() > 10


def test_quirk_jpegs_are_not_scaled_while_decoding() -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(photo(3, (1600, 1200)))).save(out, "JPEG", quality=95)
    whole = torch.from_numpy(np.array(Image.open(io.BytesIO(out.getvalue())), dtype=np.float32)).permute(2, 0, 1)[None]
    want = F.interpolate(whole, (96, 96), mode="bilinear", align_corners=False, antialias=False)[0]
    assert apart(decode(out.getvalue(), PixelSpec(96, antialias=False)).pixels, want.permute(1, 2, 0).numpy()) <= 0.52


def test_without_antialiasing_only_bilinear() -> None:
    with pytest.raises(ValueError, match="bilinear"):
        PixelSpec(96, interpolation="bicubic", antialias=False)
    spec = PixelSpec(96, antialias=False)
    assert PixelSpec.from_dict(spec.to_dict()) == spec


def boxed(tmp_path: Path, sizes: list[tuple[int, int]], boxes: list[list[list[float]]]) -> tuple[BoxFile, list[Origin]]:
    lines = [json.dumps({"image_id": f"{i}.png", "bbox": some}) for i, some in enumerate(boxes)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    origins = [Origin(str(tmp_path / f"{i}.png"), *size) for i, size in enumerate(sizes)]
    return BoxFile(tmp_path / "boxes.jsonl"), origins


def test_quirk_regions_and_the_whole_image_tower(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    """Boxes of different number, one list longer than the most: as the published loop over pictures and boxes."""
    path, reference = tiny
    sizes = [(300, 180), (120, 200), (96, 96)]
    boxes = [
        [[10, 20, 150, 170], [0, 0, 299, 90], [200, 100, 300, 180], [5, 5, 60, 60], [70, 7, 90, 99], [1, 1, 2, 2]],
        [[60, 100, 120, 200]],
        [],
    ]
    data = [photo(i, size) for i, size in enumerate(sizes)]
    source, origins = boxed(tmp_path, sizes, boxes)
    encoder = BriVLEncoder(OfficialCheckpoint(str(path)), device="cpu", precision="fp32", boxes=source)
    pixels = np.stack([decode(one, encoder.pixels).pixels for one in data])
    got = encoder.encode_pictures(pixels, origins)
    in_square = [
        [[v * 96 / side for v, side in zip(box, size * 2, strict=True)] for box in some]
        for some, size in zip(boxes, sizes, strict=True)
    ]
    rounded = [
        (torch.from_numpy(p).permute(2, 0, 1) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for p in pixels
    ]
    assert apart(got, reference.images(rounded, in_square)) < 2e-5
    exact = reference.images([reference.pixels(one) for one in data], in_square)  # not rounded to grey levels
    whole = [
        (np.asarray(Image.open(io.BytesIO(one))), (0.0, 0.0, *size)) for one, size in zip(data, sizes, strict=True)
    ]
    floats = np.stack([sample_bilinear(picture, box, 96) for picture, box in whole]).astype(np.float64)
    assert apart(encoder.encode_unrounded(floats, origins), exact) < 5e-4
    assert 5e-3 < apart(got, exact) < 0.1  # rounding, through a random network
    aligned = _with(OfficialCheckpoint(str(path)), lambda c: _roi(c, "aligned"))
    other = BriVLEncoder(aligned, device="cpu", precision="fp32", boxes=source).encode_pictures(pixels, origins)
    assert apart(other, got) > 1e-3


def test_without_boxes_the_fixed_grid(tiny: tuple[Path, Reference], tmp_path: Path) -> None:
    path, reference = tiny
    encoder = load_encoder(f"official:{path}", device="cpu", precision="fp32")
    pixels = np.stack([decode(photo(i), encoder.pixels).pixels for i in range(2)])
    grid = [[0, 0, 48, 48], [0, 48, 48, 96], [48, 0, 96, 48], [48, 48, 96, 96]]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tensors = [(torch.from_numpy(p).permute(2, 0, 1) / 255 - mean) / std for p in pixels]
    assert apart(encoder.encode_images(pixels), reference.images(tensors, [grid, grid])) < 2e-5


def _with(checkpoint: OfficialCheckpoint, change: Callable[[ModelConfig], ModelConfig]) -> OfficialCheckpoint:
    checkpoint.config = change(checkpoint.config)
    return checkpoint


def _roi(config: ModelConfig, roi: str) -> ModelConfig:
    raw = config.to_dict()
    raw["image"]["roi"] = roi
    return ModelConfig.from_dict(raw)


def test_corrected_is_the_default_for_models_trained_here(tiny: tuple[Path, Reference]) -> None:
    config = ModelConfig()
    assert config.image.pixels.antialias and config.text.padding == "masked"
    for name in official.PUBLISHED:
        quirky = published_config(name)
        assert not quirky.image.pixels.antialias and quirky.text.padding == "seen" and quirky.image.roi == "brivl"
        right = corrected(quirky)
        assert right.image.pixels.antialias and right.text.padding == "masked" and right.image.roi == "aligned"
        assert right.sizes() != quirky.sizes()
