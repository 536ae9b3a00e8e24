"""Files without their last bytes: read if no pixel is missing, refused if one is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus import images
from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.errors import ImageError
from tests.support import pictures

SPEC = PixelSpec(32)


def photo(size: tuple[int, int] = (301, 203)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (9, 13, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


COMPLETE = [  # format, options, bytes that hold no pixel
    ("JPEG", {}, 2),
    ("JPEG", {}, 1),
    ("JPEG", {"progressive": True}, 2),
    ("JPEG", {"restart_marker_rows": 2}, 2),
    ("JPEG", {"quality": 30}, 2),
    ("PNG", {}, 12),
    ("PNG", {}, 3),
    ("GIF", {}, 1),
    ("GIF", {}, 2),
    ("BMP", {}, 1),  # 301 pixels of three bytes: a byte of padding
    ("JPEG2000", {}, 2),
    ("JPEG2000", {}, 1),
]


@pytest.mark.parametrize(("form", "options", "missing"), COMPLETE)
def test_without_the_end_mark(form: str, options: dict[str, object], missing: int) -> None:
    whole = pictures.encoded(photo(), form, **options)
    assert np.array_equal(decode(whole[:-missing], SPEC).pixels, decode(whole, SPEC).pixels)


def test_a_webp_without_its_padding_byte() -> None:
    whole = next(
        data for quality in range(40, 90) if not (data := pictures.encoded(photo(), "WEBP", quality=quality))[-1]
    )
    assert np.array_equal(decode(whole[:-1], SPEC).pixels, decode(whole, SPEC).pixels)


@pytest.mark.parametrize("form", ["JPEG", "progressive", "PNG", "GIF", "BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
def test_with_pixels_missing(form: str, part: float) -> None:
    options = {"progressive": True} if form == "progressive" else {}
    whole = pictures.encoded(photo(), "JPEG" if options else form, **options)
    with pytest.raises(ImageError) as caught:
        decode(whole[: int(part * len(whole))], SPEC)
    assert caught.value.reason == "truncated"


def test_a_progressive_jpeg_that_ends_between_two_scans_is_truncated() -> None:
    whole = pictures.encoded(photo(), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: whole.rindex(b"\xff\xda")], SPEC)


def test_large_phone_photos_are_within_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """16,320 × 12,240 pixels by the header of a smaller file, whose end the decoder fills with grey."""
    data = bytearray(pictures.jpeg((640, 480)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (12240).to_bytes(2, "big") + (16320).to_bytes(2, "big")
    assert decode(bytes(data), PixelSpec(224)).width == 16320
    with pytest.raises(ImageError, match="too large"):
        decode(bytes(data), PixelSpec(224), max_megapixels=150)
    data[at : at + 4] = (65000).to_bytes(2, "big") + (65000).to_bytes(2, "big")
    with pytest.raises(ImageError, match="too large"):
        decode(bytes(data), PixelSpec(224))
    monkeypatch.setattr(images, "MAX_MEGAPIXELS", 0.01)
    monkeypatch.setattr(images, "JPEG_MEGAPIXELS", 0.06)
    small = pictures.jpeg((300, 200))
    assert decode(small, SPEC, max_megapixels=0.01).width == 300
    with pytest.raises(ImageError, match="too large"):  # what is not decoded in reduced size has the usual limit
        decode(pictures.encoded(Image.new("RGB", (300, 200)), "PNG"), SPEC, max_megapixels=0.01)
