"""brivl_search.corpus.images: every mode becomes RGB, every bad file becomes a reason."""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.images import PixelSpec, decode, load_pixels, read_file
from brivl_search.errors import ImageError
from tests.support import pictures

SMALL = PixelSpec(16)
RED, WHITE = (255, 0, 0), (255, 255, 255)


def close(actual: np.ndarray, expected: tuple[int, ...] | np.ndarray, tolerance: int = 3) -> bool:
    return bool(np.abs(actual.astype(int) - np.asarray(expected).astype(int)).max() <= tolerance)


def pixels(image: Image.Image, kind: str = "PNG", spec: PixelSpec = SMALL, **options: object) -> np.ndarray:
    return decode(pictures.encoded(image, kind, **options), spec).pixels


def test_spec_round_trip_and_checks() -> None:
    spec = PixelSpec(448, "crop", "bicubic")
    assert PixelSpec.from_dict(spec.to_dict()) == spec
    assert PixelSpec.from_dict({}) == PixelSpec(224, "squash", "bilinear")
    for wrong in ({"size": 0}, {"resize": "stretch"}, {"interpolation": "nearest"}, {"colour": 1}):
        with pytest.raises(ValueError):
            PixelSpec.from_dict(wrong)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_pillows_resize(interpolation: str) -> None:
    image = pictures.draw("red", "triangle", (120, 80))
    resample = Image.Resampling[interpolation.upper()]
    expected = np.asarray(image.resize((64, 64), resample))
    found = pixels(image, spec=PixelSpec(64, "squash", interpolation))  # type: ignore[arg-type]
    assert found.dtype == np.uint8 and found.shape == (64, 64, 3) and found.flags.writeable
    assert np.array_equal(found, expected)


def test_crop_takes_the_centre() -> None:
    image = Image.new("RGB", (90, 30), RED)
    image.paste((0, 0, 255), (30, 0, 60, 30))
    assert close(pixels(image, spec=PixelSpec(30, "crop")), (0, 0, 255))
    assert close(pixels(image.rotate(90, expand=True), spec=PixelSpec(10, "crop"))[2:8], (0, 0, 255))


def test_small_images_are_enlarged() -> None:
    assert close(pixels(Image.new("RGB", (1, 1), RED)), RED)
    assert decode(pictures.encoded(Image.new("L", (3, 2000), 7), "PNG"), SMALL).pixels.shape == (16, 16, 3)


MODES = [
    (Image.new("RGB", (20, 20), RED), "PNG", RED),
    (Image.new("L", (20, 20), 100), "PNG", (100, 100, 100)),
    (Image.new("1", (20, 20), 1), "PNG", WHITE),
    (Image.new("RGB", (20, 20), RED).convert("P"), "PNG", RED),
    (Image.new("RGB", (20, 20), RED).convert("P"), "GIF", RED),
    (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
    (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "TIFF", RED),
    (Image.new("YCbCr", (20, 20), (76, 85, 255)), "JPEG", (254, 0, 0)),
    (Image.new("LAB", (20, 20), (255, 128, 128)), "TIFF", WHITE),
    (Image.new("RGBA", (20, 20), (255, 0, 0, 255)), "PNG", RED),
    (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG", WHITE),
    (Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "PNG", (127, 127, 127)),
    (Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "WEBP", (127, 127, 127)),
    (Image.new("LA", (20, 20), (0, 128)), "PNG", (127, 127, 127)),
    (Image.fromarray(np.full((20, 20), 32896, np.uint16)), "PNG", (128, 128, 128)),
    (Image.fromarray(np.full((20, 20), 32896, np.uint16)), "TIFF", (128, 128, 128)),
    (Image.fromarray(np.full((20, 20), 32896, np.int32)), "TIFF", (128, 128, 128)),
    (Image.fromarray(np.full((20, 20), 0.5, np.float32)), "TIFF", (128, 128, 128)),
    (Image.fromarray(np.full((20, 20), 200.0, np.float32)), "TIFF", (200, 200, 200)),
    (Image.fromarray(np.full((20, 20), np.nan, np.float32)), "TIFF", (0, 0, 0)),
    (Image.new("RGB", (20, 20), RED), "BMP", RED),
]


@pytest.mark.parametrize(("image", "kind", "expected"), MODES, ids=lambda v: getattr(v, "mode", str(v)))
def test_modes(image: Image.Image, kind: str, expected: tuple[int, int, int]) -> None:
    found = pixels(image, kind)
    assert found.shape == (16, 16, 3) and close(found, expected), found[8, 8]


def test_float_and_wide_integers_out_of_range_are_stretched() -> None:
    ramp = np.linspace(-1e6, 1e6, 400).reshape(20, 20)
    for array in (ramp.astype(np.float32), ramp.astype(np.int32)):
        found = pixels(Image.fromarray(array), "TIFF", PixelSpec(20))
        assert found.min() == 0 and found.max() == 255


def test_16_bit_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    assert close(pixels(Image.fromarray(ramp))[..., 0].reshape(-1), np.arange(256), 1)


def test_transparent_colours_of_palette_and_rgb() -> None:
    palette = Image.new("RGB", (20, 20), RED).convert("P")
    index = palette.getpixel((0, 0))
    assert close(pixels(palette, transparency=index), WHITE)
    assert close(pixels(Image.new("RGB", (20, 20), RED), transparency=RED), WHITE)
    assert close(pixels(Image.new("L", (20, 20), 9), transparency=9), WHITE)


def test_colour_does_not_bleed_out_of_transparent_pixels() -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (32, 0, 64, 64))
    found = pixels(image)
    assert close(found[:, :6], WHITE) and close(found[:, 10:], RED)
    assert (found[..., 0] == 255).all()  # between white and red there is pink, not green


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, (0, 0, 255))]
    assert close(pixels(frames[0], kind, save_all=True, append_images=frames[1:]), RED, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (60, 40), WHITE)
    upright.paste(RED, (0, 0, 30, 20))  # upper left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation > 1:
        inverse = {2: 2, 4: 4}.get(undo[orientation], undo[orientation])
        stored = upright.transpose(Image.Transpose({2: 4, 4: 2}.get(inverse, inverse)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    image = decode(pictures.encoded(stored, kind, exif=exif, **options), PixelSpec(20))
    # the reference: Pillow's own exif_transpose
    from PIL import ImageOps

    reference = Image.open(io.BytesIO(pictures.encoded(stored, kind, exif=exif, **options)))
    reference = ImageOps.exif_transpose(reference)
    assert (image.width, image.height) == reference.size
    assert close(image.pixels, np.asarray(reference.convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)), 2)


def test_damaged_exif_does_not_lose_the_picture() -> None:
    data = pictures.jpeg(exif=b"Exif\0\0" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data, SMALL).width == 96


def test_large_jpegs_are_scaled_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import JpegImagePlugin

    image = pictures.draw("blue", "triangle", (1200, 800))
    drafts = []
    original = JpegImagePlugin.JpegImageFile.draft

    def spy(self, mode, size):  # type: ignore[no-untyped-def]
        done = original(self, mode, size)
        drafts.append(self.size)
        return done

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    found = decode(pictures.encoded(image, "JPEG", quality=95), PixelSpec(64))
    assert drafts == [(200, 134)] or drafts == [(300, 200)] or drafts == [(200, 133)]
    assert min(drafts[0]) >= 128 and (found.width, found.height) == (1200, 800)
    assert close(found.pixels, np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)), 40)
    mean = np.abs(found.pixels.astype(int) - np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))).mean()
    assert mean < 2


@pytest.mark.parametrize("name", pictures.bad_bytes())
def test_bad_files_have_a_reason(name: str) -> None:
    content, reason = pictures.bad_bytes()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode(content, SMALL)
    assert caught.value.reason == reason, str(caught.value)


def test_bombs_are_refused_by_their_header() -> None:
    with pytest.raises(ImageError) as caught:
        decode(pictures.bomb_png(), SMALL)
    for part in ("60000x50000", "178", "`max_megapixels`"):
        assert part in caught.value.detail
    big = pictures.encoded(Image.new("L", (1000, 1001)), "PNG")
    with pytest.raises(ImageError, match="too large"):
        decode(big, SMALL, max_megapixels=1)
    assert decode(big, SMALL, max_megapixels=1.001).width == 1000


def test_the_limit_may_be_raised_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(pictures.jpeg((96, 64)), SMALL).width == 96
    assert Image.MAX_IMAGE_PIXELS == 100


def test_every_cut_and_many_flips_end_in_pixels_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    kinds = [("PNG", {}), ("JPEG", {}), ("GIF", {}), ("WEBP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})]
    for kind, options in kinds:
        data = pictures.encoded(pictures.draw("red", "ring", (24, 24)), kind, **options)
        damaged = [data[:n] for n in range(1, len(data), max(1, len(data) // 25))]
        for _ in range(60):
            flipped = bytearray(data)
            for at in rng.integers(0, len(data), 4):
                flipped[at] = rng.integers(0, 256)
            damaged.append(bytes(flipped))
        for content in damaged:
            try:
                assert decode(content, SMALL, max_megapixels=1).pixels.shape == (16, 16, 3)
            except ImageError as error:
                assert error.reason in ("truncated", "corrupt", "not an image", "too large", "unsupported format")


@pytest.mark.parametrize(
    "error", [MemoryError(), OverflowError("x"), RuntimeError("x"), EOFError(), IndexError(), Exception("x")]
)
def test_whatever_a_codec_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from brivl_search.corpus import images

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(images, "_decode", fail)
    with pytest.raises(ImageError) as caught:
        decode(b"x", SMALL)
    assert caught.value.reason in ("out of memory", "truncated", "corrupt")


def test_reading_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(pictures.jpeg())
    assert np.array_equal(load_pixels(str(path), SMALL), load_pixels(path.read_bytes(), SMALL))
    os.mkfifo(tmp_path / "fifo.jpg")
    cases = {
        "nowhere.jpg": "file vanished",
        "a.jpg/b": "file vanished",
        "fifo.jpg": "not a regular file",
        ".": "not a regular file",
    }
    for name, reason in cases.items():
        with pytest.raises(ImageError) as caught:
            read_file(f"{tmp_path}/{name}")
        assert caught.value.reason == reason
    with pytest.raises(ImageError, match="too large"):
        read_file(str(path), max_bytes=10)
    with pytest.raises(ImageError, match="read error"):
        read_file("nul\0byte")


def test_permission_denied(tmp_path: Path) -> None:
    if pictures.reads_everything(tmp_path):
        pytest.skip("root may read everything")
    path = tmp_path / "a.jpg"
    path.write_bytes(pictures.jpeg())
    path.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_file(str(path))


def test_threads_leave_no_trace() -> None:
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    data = pictures.jpeg((300, 200))
    threads = [threading.Thread(target=lambda: [decode(data, SMALL) for _ in range(20)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before
