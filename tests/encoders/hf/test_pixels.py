"""Pixels and patches against transformers' own image processors."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.corpus.patches import grid, square_side, unpack
from tests.support.tiny_hf import (
    photo,
)


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
