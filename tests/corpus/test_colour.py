"""brivl_search.corpus.colour: transparency, greys of any depth, ICC profiles."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from brivl_search.corpus import colour
from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.corpus.thumbnails import shrink
from tests.support import pictures

SPEC = PixelSpec(64)
MODES = ("RGBA", "LA", "P", "PA")


def lines(level: int, size: int = 128, mode: str = "RGBA") -> Image.Image:
    """Thin strokes of one grey on transparency."""
    art = Image.new("LA", (size, size), (level, 0))
    pen = ImageDraw.Draw(art)
    for at in range(10, size, 24):
        pen.line((at, 5, size - at, size - 5), (level, 255), 3)
        pen.ellipse((at, at, at + 20, at + 20), outline=(level, 255), width=2)
    return art if mode == "LA" else art.convert("RGBA")


def seen(data: bytes, spec: PixelSpec = SPEC) -> np.ndarray:
    return decode(data, spec).pixels.astype(int)


def saved(level: int, form: str) -> bytes:
    art = lines(level)
    if form == "GIF":
        return pictures.encoded(art, "GIF")
    if form == "palette":
        clear = Image.new("P", art.size, 0)
        clear.putpalette([7, 7, 7, level, level, level])
        clear.paste(1, mask=art.getchannel("A").point(lambda value: 255 * (value > 127)))
        return pictures.encoded(clear, "PNG", transparency=0)
    if form in ("grey key", "grey key 16"):  # one grey level is transparent: tRNS
        other = 255 - level
        grey = Image.new("L", art.size, other)
        grey.paste(level, mask=art.getchannel("A").point(lambda value: 255 * (value > 127)))
        if form == "grey key":
            return pictures.encoded(grey, "PNG", transparency=other)
        wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        return with_trns(pictures.encoded(wide, "PNG"), other * 257)
    if form == "TIFF":
        return pictures.encoded(art, "TIFF")
    return pictures.encoded(lines(level, mode="LA") if form == "LA" else art, form.replace("LA", "PNG"), lossless=True)


def with_trns(png: bytes, level: int) -> bytes:
    at = png.index(b"IDAT") - 4
    return png[:at] + pictures.png_chunk(b"tRNS", struct.pack(">H", level)) + png[at:]


@pytest.mark.parametrize("form", ["PNG", "LA", "WEBP", "GIF", "TIFF", "palette", "grey key", "grey key 16"])
@pytest.mark.parametrize("spec", [SPEC, PixelSpec(64, "crop", "bicubic"), PixelSpec(64, antialias=False)])
def test_white_lines_are_seen_and_black_ones_stay_on_white(form: str, spec: PixelSpec) -> None:
    white, black = seen(saved(255, form), spec), seen(saved(0, form), spec)
    assert np.median(white) == 0 and np.median(black) == 255  # the grounds
    assert white.max() > 120 and white.mean() > 15
    assert black.min() < 135 and black.mean() < 240


def test_16_bit_grey_with_alpha() -> None:
    """A PNG of colour type 4 with 16 bits, which Pillow does not write."""
    art = np.asarray(lines(255, 64, mode="LA")).astype(np.uint16) * 257
    data = png(16, 4, [row.astype(">u2").tobytes() for row in art])
    assert np.median(seen(data)) == 0 and seen(data).max() > 120


def test_thumbnails_have_the_same_ground() -> None:
    for level in (0, 255):
        small = np.asarray(Image.open(io.BytesIO(shrink(saved(level, "PNG"), 64))).convert("L")).astype(int)
        assert abs(np.median(small) - (255 - level)) < 4


def ground_of(image: Image.Image) -> int:
    return colour.ground(image.convert("RGB"), image.getchannel("A"))


def test_grounds() -> None:
    assert ground_of(lines(255)) == ground_of(lines(235)) == colour.BLACK
    assert ground_of(lines(0)) == ground_of(lines(128)) == ground_of(lines(190)) == colour.WHITE
    both = lines(255)
    both.paste(lines(0).crop((0, 0, 128, 64)), (0, 0))
    assert ground_of(both) == colour.GREY  # black and white strokes side by side
    coloured = Image.new("RGBA", (64, 64), (255, 255, 0, 0))
    coloured.paste((255, 255, 0, 255), (20, 20, 40, 40))
    assert ground_of(coloured) == colour.WHITE  # yellow is seen on white
    sticker = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    sticker.paste((0, 0, 0, 255), (10, 10, 54, 54))
    sticker.paste((255, 255, 255, 255), (13, 13, 51, 51))
    assert ground_of(sticker) == colour.WHITE  # its outline is black
    photo = pictures.draw("blue", "circle", (64, 64)).convert("RGBA")
    photo.putpixel((0, 0), (255, 255, 255, 0))
    assert ground_of(Image.new("RGBA", (9, 9), (255, 255, 255, 0))) == colour.WHITE  # nothing to see
    assert ground_of(Image.new("RGBA", (9, 9), (255, 255, 255, 255))) == colour.WHITE


# -- greys -----------------------------------------------------------------------------------------------------------


def grey(seed: int = 0) -> np.ndarray:
    """uint16 (96, 96) that fills 16 bits."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray((rng.random((8, 8)) * 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    values = np.asarray(small).astype(float)
    return ((values - values.min()) / np.ptp(values) * 65535).round().astype(np.uint16)


def tiff(values: np.ndarray, big_endian: bool = False, form: int = 1, photometric: int = 1) -> bytes:
    """A plain TIFF of one channel; Pillow writes only some of them. `form`: 1 unsigned, 2 signed, 3 float."""
    order = ">" if big_endian else "<"
    height, width = values.shape
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, width), (257, height), (258, values.dtype.itemsize * 8), (259, 1), (262, photometric), (273, 0)]
    tags += [(277, 1), (278, height), (279, len(raw)), (339, form)]
    start = 8 + 2 + 12 * len(tags) + 4
    body = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        body += struct.pack(order + "HHII", tag, 4, 1, start if tag == 273 else value)
    return (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", 8) + body + bytes(4) + raw


@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "big endian TIFF", "signed TIFF", "float TIFF", "32 bits"])
def test_greys_of_any_depth_look_like_full_16_bits(bits: int, form: str) -> None:
    values = (grey().astype(float) / 65535 * (2**bits - 1)).round().astype(np.uint16)
    data = {
        "PNG": lambda: pictures.encoded(Image.fromarray(values), "PNG"),
        "TIFF": lambda: tiff(values),
        "big endian TIFF": lambda: tiff(values, big_endian=True),
        "signed TIFF": lambda: tiff(values.astype(np.int16), form=2),
        "float TIFF": lambda: tiff(values.astype(np.float32), form=3),
        "32 bits": lambda: tiff(values.astype(np.int32), form=2),
    }[form]()
    full = seen(pictures.encoded(Image.fromarray(grey()), "PNG"))
    assert np.abs(seen(data) - full).max() <= 2


@pytest.mark.parametrize("level", [0.3, 0.6, 1.0])
def test_dark_pictures_keep_their_brightness_at_every_depth(level: float) -> None:
    full = (grey() * level).astype(np.uint16)
    expected = seen(pictures.encoded(Image.fromarray((full >> 8).astype(np.uint8)), "PNG"))
    for shift in (0, 2, 4, 6):
        assert np.abs(seen(pictures.encoded(Image.fromarray(full >> shift), "PNG")) - expected).max() <= 2


def test_computed_tomography_signed_with_air_at_minus_1024() -> None:
    units = (grey().astype(float) / 65535 * 4095 - 1024).round().astype(np.int16)
    full = seen(pictures.encoded(Image.fromarray(grey()), "PNG"))
    assert np.abs(seen(tiff(units, form=2)) - full).max() <= 2


def test_floats() -> None:
    full = seen(pictures.encoded(Image.fromarray(grey()), "PNG"))
    unit = grey().astype(np.float32) / 65535
    for values in (unit, unit * 1.02 - 0.01, unit * 255, unit * 4095, unit * 3 - 1, unit * 7):
        assert np.abs(seen(tiff(values.astype(np.float32), form=3)) - full).max() <= 4, values.max()
    empty = (unit * 8 - 4).astype(np.float32)
    empty[0, 0] = -3.4e38  # "no data"
    assert np.abs(seen(tiff(empty, form=3)) - full)[4:].max() <= 6


def test_white_is_zero() -> None:
    full = seen(tiff(grey()))
    assert np.abs(255 - seen(tiff(grey(), photometric=0)) - full).max() <= 1


def png(bits: int, colours: int, rows: list[bytes], trns: bytes = b"") -> bytes:
    """A PNG of 64 × 64 pixels in a layout that Pillow does not write."""
    header = struct.pack(">IIBBBBB", 64, 64, bits, colours, 0, 0, 0)
    body = pictures.png_chunk(b"IHDR", header) + (pictures.png_chunk(b"tRNS", trns) if trns else b"")
    body += pictures.png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + body + pictures.png_chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_colours_of_fewer_bits_than_their_file_holds(bits: int) -> None:
    values = np.asarray(pictures.draw("blue", "triangle", (64, 64), seed=2)).astype(int)
    deep = values * (2**bits - 1) // 255
    found = seen(png(16, 2, [row.astype(">u2").tobytes() for row in deep])).ravel()
    expected = seen(png(16, 2, [row.astype(">u2").tobytes() for row in values * 257])).ravel()
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.98
    assert np.array_equal(expected, values.ravel())


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_grey_of_few_bits(bits: int) -> None:
    values = np.ones((64, 64), np.uint8)  # level 1 is transparent
    values[::8] = values[1::8] = 2**bits - 1
    cells = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(64, -1)
    found = seen(png(bits, 0, [np.packbits(row).tobytes() for row in cells], struct.pack(">H", 1)))
    assert found[0, 0, 0] == 255 and found[4, 4, 0] == 0  # white lines on black


# -- profiles --------------------------------------------------------------------------------------------------------


def number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile_of(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.2."""
    tags = tags | {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(128)
    head[0:4] = struct.pack(">I", start + len(body))
    head[8:12] = b"\x02\x20\0\0"
    head[12:24] = kind + space + pcs
    head[36:40] = b"acsp"
    head[68:80] = number(0.9642) + number(1.0) + number(0.8249)
    return bytes(head) + table + body


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(number, values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def curve_and_matrix(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], gamma: float) -> bytes:
    """Of RGB: colorants in XYZ (D50) and a gamma."""
    tags = {b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue)}
    return profile_of(
        b"RGB ", b"XYZ ", b"mntr", tags | {b"rTRC": curve(gamma), b"gTRC": curve(gamma), b"bTRC": curve(gamma)}
    )


def inks() -> bytes:
    """Of CMYK: a table of two steps an ink, in which all inks are greyish, unlike in the plain formula."""
    ramp = bytes(range(256))
    table = b""
    for mix in range(16):
        c, m, y, k = (mix >> bit & 1 for bit in (3, 2, 1, 0))
        light = max(0, 230 - 60 * c - 60 * m - 20 * y - 150 * k)
        table += bytes([light, 128 - 10 * c + 15 * m, 128 - 20 * c + 25 * y])
    matrix = b"".join(map(number, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + table + 3 * ramp
    return profile_of(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut})


ADOBE = curve_and_matrix((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 2.2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colours() -> Image.Image:
    levels = np.linspace(0, 255, 8).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels[:1]), axis=-1).reshape(8, 8, 3)
    return Image.fromarray(grid).resize((64, 64), Image.Resampling.NEAREST)


def converted(image: Image.Image, profile: bytes) -> np.ndarray:
    """The reference: all pixels through LittleCMS, then scaled."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    out = ImageCms.profileToProfile(image, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(out).astype(int)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_colours_are_converted_by_the_profile(form: str) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    data = pictures.encoded(colours(), form, icc_profile=ADOBE, **options)
    expected = converted(colours(), ADOBE)
    assert np.abs(expected - np.asarray(colours()).astype(int)).max() > 20  # the profile matters
    assert np.abs(seen(data) - expected).mean() < 1.5
    small = np.asarray(Image.open(io.BytesIO(shrink(data, 64, quality=95)))).astype(int)
    assert np.abs(small - expected).mean() < 6
    assert "icc_profile" not in Image.open(io.BytesIO(shrink(data, 64))).info


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_inks_are_converted_by_the_profile(form: str) -> None:
    image = colours().convert("CMYK")
    options = {"JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    found = seen(pictures.encoded(image, form, icc_profile=inks(), **options))
    expected = converted(image, inks())
    plain = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - expected).mean() < 2 < 20 < np.abs(plain - expected).mean()


def test_greys_are_converted_by_the_profile() -> None:
    linear = profile_of(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve(1.0)})
    ramp = Image.linear_gradient("L").resize((64, 64))
    expected = converted(ramp, linear)
    assert np.abs(expected - np.asarray(ramp)[..., None].astype(int)).max() > 40
    wide = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    assert np.abs(seen(pictures.encoded(ramp, "PNG", icc_profile=linear)) - expected).max() <= 1
    assert np.abs(seen(pictures.encoded(wide, "PNG", icc_profile=linear)) - expected).max() <= 1


def test_heic_and_avif_are_converted_too() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    flat = Image.new("RGB", (64, 64), (200, 40, 90))
    for form in ("HEIF", "AVIF"):
        found = seen(pictures.encoded(flat, form, icc_profile=ADOBE, quality=95))
        assert np.abs(found - converted(flat, ADOBE)).max() <= 4 < np.abs(found - np.asarray(flat)).max()


def test_transparency_palettes_and_16_bit_greys_are_converted_too() -> None:
    expected = converted(colours(), ADOBE)
    clear = colours().convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    assert np.abs(seen(pictures.encoded(clear, "PNG", icc_profile=ADOBE)) - expected)[1:].mean() < 1
    palette = colours().quantize(64)
    assert np.abs(seen(pictures.encoded(palette, "PNG", icc_profile=ADOBE)) - expected).mean() < 4


@pytest.mark.parametrize(
    "profile", [SRGB, b"", b"damaged", ADOBE[:200], ADOBE[:128] + bytes(400), SRGB.replace(b"RGB ", b"CMYK", 1)]
)
def test_srgb_and_damaged_profiles_change_nothing(profile: bytes) -> None:
    image = pictures.draw("purple", "ring", (300, 200), seed=1)
    plain = seen(pictures.encoded(image, "JPEG", quality=90))
    assert np.array_equal(seen(pictures.encoded(image, "JPEG", quality=90, icc_profile=profile)), plain)


def test_a_profile_of_other_colours_than_the_picture_is_passed_over() -> None:
    ramp = Image.linear_gradient("L")
    assert np.array_equal(seen(pictures.encoded(ramp, "JPEG", icc_profile=ADOBE)), seen(pictures.encoded(ramp, "JPEG")))
