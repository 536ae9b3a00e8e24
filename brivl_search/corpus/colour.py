"""Whatever a file holds → 8-bit RGB as a screen shows it: greys of any depth, ICC profiles, transparency.

- Greys of more than 8 bits are scaled by the depth that they use, see `to_8_bits`.
- Colours are converted to sRGB by the file's ICC profile. A profile that says sRGB changes nothing.
- Transparency goes on white, or on a ground that the visible pixels stand out from, see `ground`.

Pillow is imported by the first picture, not by importing this module.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

WHITE, BLACK, GREY = 255, 0, 128
_UNSEEN = 40  # levels that a pixel may differ from the ground, in each channel, and still not be seen
_LOST = 0.25  # share of the visible that may be unseen before another ground is tried
_LOOKED_AT = 512  # pixels of the longer side when a ground is chosen
_SAME = 3  # levels that a profile may move a colour and still count as sRGB


_DEEP = "16 bits a channel"  # in `info`: what only the file's layout tells, and loading forgets


def before_loading(image: Image.Image) -> None:
    """Keep in `info` what can be known only of a picture that is opened and not loaded yet."""
    layouts = [str(tile.args) for tile in getattr(image, "tile", [])]
    if any("RGB" in layout and ";16" in layout for layout in layouts):
        image.info[_DEEP] = True
    clear = image.info.get("transparency")
    if isinstance(clear, int) and image.mode == "L":  # of 2 or 4 bits: Pillow scales the pixels and not the key
        for bits in (2, 4):
            if any(f"L;{bits}'" in f"{layout}'" for layout in layouts):
                image.info["transparency"] = clear * 255 // (2**bits - 1)


def smooth(image: Image.Image) -> Image.Image:
    """Bring modes that cannot be interpolated, or whose range is not 0 to 255, to one that can and is.

    Returns:
        A picture of mode L, LA, RGB, RGBA, CMYK or YCbCr, with its ICC profile in `info` as before.
    """
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _grey(image)
    if mode == "LAB":
        from PIL import ImageCms

        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, to_srgb)
        assert converted is not None
        return converted
    if image.info.get(_DEEP) and mode in ("RGB", "RGBA"):
        image = _brightened(image)
    if mode in ("RGBa", "La"):
        return image.convert({"RGBa": "RGBA", "La": "LA"}[mode])
    if image.has_transparency_data:
        return image if mode in ("RGBA", "LA") else image.convert("RGBA")
    if mode in ("RGB", "L", "CMYK", "YCbCr"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of a mode that `smooth` leaves → RGB: profile converted, transparency on its ground."""
    if image.mode not in ("RGBA", "LA"):
        return _in_srgb(image)
    from PIL import Image

    alpha = image.getchannel("A")
    colours = _in_srgb(image.convert("RGB") if image.mode == "RGBA" else image.getchannel(0))
    level = ground(colours, alpha)
    colours.putalpha(alpha)
    page = Image.new("RGBA", colours.size, (level, level, level, 255))
    return Image.alpha_composite(page, colours).convert("RGB")


# -- greys -----------------------------------------------------------------------------------------------------------


def _grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating point → 8 bits, with what `info` says of transparency and colour."""
    from PIL import Image

    values = np.asarray(image)
    scaled = to_8_bits(values, hint=_tag(image, 281))
    if _tag(image, 262) == 0 and image.mode != "F":  # a TIFF in which white is zero; Pillow turns round 8 bits only
        scaled = 255 - scaled
    grey = Image.fromarray(scaled)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    if "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
    return grey


def _brightened(image: Image.Image) -> Image.Image:
    """Colours of 10, 12 or 14 bits in 16: of such pixels Pillow has kept the upper byte, in which there is little."""
    bands = image.split()
    top = max(band.getextrema()[1] for band in bands[:3])
    levels = next((levels for levels in (3, 15, 63) if top <= levels), 255)  # type: ignore[operator]
    if levels == 255 or not top:
        return image
    from PIL import Image

    scaled = [band.point([min(255, value * 255 // levels) for value in range(256)]) for band in bands[:3]]
    out = Image.merge(image.mode, [*scaled, *bands[3:]])
    out.info.update(image.info)
    return out


def _tag(image: Image.Image, number: int) -> int:
    """A whole number that a TIFF says of itself, -1 where it does not."""
    value: Any = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else -1


def to_8_bits(values: NDArray[Any], hint: int = -1) -> NDArray[np.uint8]:
    """Grey values of any type, scaled to 0 to 255.

    Whole numbers that are not below zero have a depth. It is the least of 8, 10, 12, 14 and 16 bits that holds the
    largest of them, or an odd number of bits that the largest fills exactly.
    So 10- and 12-bit data in a 16-bit file looks like the same picture in full 16 bits. Floating point is 0 to 1, 0 to
    255, or such a depth. Anything else (below zero, or beyond 16 bits) is stretched from its lowest to its highest.

    Args:
        values: (height, width).
        hint: the largest value that there may be, where the file says so; -1: it does not.
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            values = np.where(finite, values, 0)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= -0.05 and high <= 1.05:
        return _scaled(values, 0.0, 1.0)
    if values.dtype.kind == "f" and (high < 16 or low < 0):
        return _scaled(values, *_ends(values, low, high))
    if low < 0 or high > 65535:
        return _scaled(values, *_ends(values, low, high))
    bits = max(8, int(np.ceil(max(high, min(hint, 65535)))).bit_length())
    if bits % 2 and high != 2**bits - 1:
        bits += 1
    return _scaled(values, 0.0, float(2**bits - 1))


def _ends(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """What becomes black and white: the extremes, but for a few values far from all others (such as "no data")."""
    near_low, near_high = (float(one) for one in np.percentile(values, (0.1, 99.9)))
    return (near_low, near_high) if 0 < near_high - near_low < (high - low) / 8 else (low, high)


def _scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    scale = 255.0 / ((white - black) or 1.0)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # by table: less memory, and faster
        table = np.rint((np.arange(65536, dtype=np.float32) - black) * np.float32(scale)).clip(0, 255).astype(np.uint8)
        looked_up: NDArray[np.uint8] = table[values]
        return looked_up
    floats: NDArray[Any] = values.astype(np.float64 if values.dtype.kind == "i" else np.float32)
    scaled: NDArray[np.uint8] = np.rint((floats - black) * scale).clip(0, 255).astype(np.uint8)
    return scaled


# -- profiles --------------------------------------------------------------------------------------------------------


def _in_srgb(image: Image.Image) -> Image.Image:
    """RGB as a screen shows it, by the picture's ICC profile if that fits its mode and can be read."""
    profile = image.info.get("icc_profile")
    if not profile or not isinstance(profile, bytes):
        return image.convert("RGB")
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    transform = _to_srgb(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    from PIL import ImageCms

    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    converted.info.pop("icc_profile", None)
    return converted


@functools.lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> Any:
    """What brings pixels of a mode to sRGB; None: they are sRGB, or the profile is damaged or of other colours."""
    spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
    try:
        from PIL import ImageCms

        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != spaces.get(mode):
            return None
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except Exception:  # a damaged profile, or a Pillow without LittleCMS, is no reason to lose the picture
        return None


def _changes_nothing(transform: Any) -> bool:
    """Whether a transform of RGB leaves a grid of colours what they are, but for rounding."""
    from PIL import Image, ImageCms

    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    moved = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return bool(np.abs(np.asarray(moved).astype(int) - colours).max() <= _SAME)


# -- transparency ----------------------------------------------------------------------------------------------------


def ground(colours: Image.Image, alpha: Image.Image) -> int:
    """The grey level on which a picture with transparency is seen best: white where that will do.

    White stays unless the visible pixels are lost on it: both in all and along their borders with what is transparent,
    where a ground shows, more than a quarter of them differ too little from white. White lines get black, black lines
    and photos keep white, black and white lines side by side get grey.

    Args:
        colours: RGB.
        alpha: L, of the same size; 255 is opaque.
    """
    if alpha.getextrema() == (255, 255):
        return WHITE
    if max(alpha.size) > _LOOKED_AT:
        size = tuple(max(1, side * _LOOKED_AT // max(alpha.size)) for side in alpha.size)
        both = colours.copy()
        both.putalpha(alpha)
        both = both.resize((size[0], size[1]))  # of mode RGBA: what is transparent does not bleed into what is not
        colours, alpha = both.convert("RGB"), both.getchannel("A")
    seen = np.asarray(alpha).astype(np.float32)
    at_border = seen * (255 - _least_around(seen))
    if not seen.any() or not at_border.any():
        return WHITE
    pixels = np.asarray(colours).astype(np.int16)

    def lost(level: int, weight: NDArray[np.float32]) -> float:
        hidden = np.abs(pixels - level).max(axis=2) < _UNSEEN
        return float(weight[hidden].sum() / weight.sum())

    if lost(WHITE, seen) <= _LOST:
        return WHITE
    shares = {level: lost(level, at_border) for level in (WHITE, BLACK, GREY)}
    return next((level for level, share in shares.items() if share <= _LOST), min(shares, key=lambda one: shares[one]))


def _least_around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least of each pixel and its eight neighbours."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    views = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    least: NDArray[np.float32] = np.minimum.reduce(views)
    return least
