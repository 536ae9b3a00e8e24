"""What a tower's pixels look like, and how a decoded picture becomes them.

Pillow is imported by the first picture, not by importing this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus import patches
from brivl_search.corpus.colour import to_rgb

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_FIRST_FIELDS = ("size", "resize", "interpolation")


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """How an image becomes a square of pixels.

    Attributes:
        size: side of the square.
        resize: "squash" ignores the aspect ratio (BriVL); "crop" scales the short side and cuts out the centre (CLIP);
            "patches" keeps the aspect ratio, see `brivl_search.corpus.patches`.
        interpolation: the filter, antialiased as Pillow does it.
        antialias: False reads single pixels around each sample however much the image shrinks, which is what
            published BriVL was trained on (torchvision's resize of a tensor, before 0.17); bilinear only.
        short_side: what "crop" scales the short side to; 0: to `size`, so that only the long side is cut.
        patch: side of a patch, for "patches".
        max_patches: how many there are at most.
        patch_steps: "patches" of small pictures: at most the smallest of these numbers that a picture has whole
            patches for; empty: `max_patches` for every picture, however small.
        centre: of an odd number of pixels that "crop" cuts away, which side loses one more. "down": the right or lower
            (transformers); "even": whichever makes the start even (torchvision).
    """

    size: int = 224
    resize: Literal["squash", "crop", "patches"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    short_side: int = 0
    patch: int = 0
    max_patches: int = 0
    centre: Literal["down", "even"] = "down"
    patch_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = self.resize in ("squash", "crop", "patches") and self.interpolation in ("bilinear", "bicubic")
        if self.size < 1 or not known:
            raise ValueError(f"not a pixel specification: {self}")
        if (self.resize == "patches") != (self.patch > 0 and self.max_patches > 0):
            raise ValueError(f"patch and max_patches belong to resize = patches: {self}")
        if self.resize == "patches" and self.size != patches.square_side(self.patch, self.max_patches):
            raise ValueError(f"the size is not that of {self.max_patches} patches: {self}")
        steps = self.patch_steps
        if steps and (list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] != self.max_patches):
            raise ValueError(f"patch_steps rise from 1 on to max_patches: {self}")
        if not self.antialias and self.interpolation != "bilinear":
            raise ValueError("antialias = false needs interpolation = bilinear")
        if self.short_side and (self.resize != "crop" or self.short_side < self.size):
            raise ValueError(f"short_side needs resize = crop, and to be at least the size: {self}")
        if self.centre not in ("down", "even") or (self.centre == "even" and self.resize != "crop"):
            raise ValueError(f"centre is down, or for resize = crop even: {self}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `from_dict` reads it back. Fields that came later are left out at their default, so
        that the fingerprints of older checkpoints, which hash this, stay what they are."""
        defaults = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if key in _FIRST_FIELDS or value != defaults[key]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PixelSpec:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: on unknown keys or values.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown keys in a pixel specification: {', '.join(unknown)}")
        steps = {"patch_steps": tuple(values["patch_steps"])} if "patch_steps" in values else {}
        return cls(**{**values, **steps})

    def most_patches(self, height: int, width: int) -> int:
        """How many patches a picture of this size has at most, for "patches"."""
        whole = (height // self.patch) * (width // self.patch)
        return next((step for step in self.patch_steps if step >= whole), self.max_patches)


def as_stored(part: Box, turn: str | None) -> Box:
    """A part of an upright picture → the same part of the picture as it lies in the file.

    Args:
        part: shares of the upright picture's width and height.
        turn: name of the `Transpose` that makes the stored picture upright; None: it lies upright.
    """
    left, top, right, bottom = part
    if turn in ("TRANSPOSE", "ROTATE_270", "ROTATE_90", "TRANSVERSE"):
        left, top, right, bottom = top, left, bottom, right
    if turn in ("FLIP_LEFT_RIGHT", "ROTATE_180", "ROTATE_90", "TRANSVERSE"):
        left, right = 1 - right, 1 - left
    if turn in ("FLIP_TOP_BOTTOM", "ROTATE_180", "ROTATE_270", "TRANSVERSE"):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def to_square(
    image: Image.Image,
    spec: PixelSpec,
    stored: tuple[int, int],
    turn: Image.Transpose | None,
    part: Box | None = None,
) -> NDArray[np.uint8]:
    """A decoded picture as `spec` says: uint8 (size, size, 3), RGB, writable.

    Args:
        image: 8 bits a channel, as it lies in the file.
        spec: what it shall become.
        stored: its size in the file, which `draft` may have divided and rounded.
        turn: what makes it upright.
        part: what of it fills the square, in shares of the stored picture; None: what `spec.resize` says.
    """
    if spec.resize == "patches":
        lies = turn is not None and turn.name in ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")
        width, height = stored[::-1] if lies else stored
        rows, columns = patches.grid(height, width, spec.patch, spec.most_patches(height, width))
        size = (rows * spec.patch, columns * spec.patch) if lies else (columns * spec.patch, rows * spec.patch)
        scaled = image.resize(size, _filter(spec), (0, 0, *_extent(image, stored)), reducing_gap=2.0)
    else:
        scaled = _scaled(image, spec, stored, part)
    scaled = to_rgb(scaled)
    upright = np.array(scaled if turn is None else scaled.transpose(turn), dtype=np.uint8)  # turned when it is small
    return patches.pack(upright, spec.patch, spec.size) if spec.resize == "patches" else upright


def _extent(image: Image.Image, stored: tuple[int, int]) -> tuple[float, float]:
    """Width and height of what is in the picture: of an odd side, `draft` leaves half a pixel (a quarter, an eighth)
    that is only padding, and to scale that along would shift everything."""
    divided = 2 ** round(math.log2(stored[0] / image.width))
    return min(stored[0] / divided, image.width), min(stored[1] / divided, image.height)


def _half(pixels: int, spec: PixelSpec) -> int:
    return round(pixels / 2) if spec.centre == "even" else pixels // 2  # `round` takes a half to the even number


def _filter(spec: PixelSpec) -> Image.Resampling:
    from PIL import Image

    return Image.Resampling.BILINEAR if spec.interpolation == "bilinear" else Image.Resampling.BICUBIC


def _scaled(image: Image.Image, spec: PixelSpec, stored: tuple[int, int], part: Box | None) -> Image.Image:
    """Scales to the square; `stored` is the size in the file, which `draft` may have divided and rounded."""
    width, height = _extent(image, stored)
    box = (0.0, 0.0, width, height)
    if part is not None:
        box = (part[0] * width, part[1] * height, part[2] * width, part[3] * height)
    elif spec.resize == "crop":
        # What torchvision and transformers do, resize to whole pixels and cut whole pixels out of the middle, without
        # making the pixels that are cut away.
        short = min(stored)
        scaled = [int((spec.short_side or spec.size) * side / short) for side in stored]
        x, y = width / scaled[0], height / scaled[1]
        left, top = (_half(side - spec.size, spec) for side in scaled)
        box = (left * x, top * y, (left + spec.size) * x, (top + spec.size) * y)
    if not spec.antialias:
        sampled = sample_bilinear(np.asarray(to_rgb(image)), box, spec.size)
        from PIL import Image

        return Image.fromarray(np.rint(sampled).astype(np.uint8))
    return image.resize((spec.size, spec.size), _filter(spec), box, reducing_gap=2.0)


def sample_bilinear(
    pixels: NDArray[np.uint8], box: tuple[float, float, float, float], size: int
) -> NDArray[np.float32]:
    """Bilinear without antialiasing, as torch's `interpolate(mode="bilinear")`.

    Args:
        pixels: uint8 (H, W, 3).
        box: the part of it to scale: left, top, right, bottom.
        size: side of the square that becomes of it.

    Returns:
        float32 (size, size, 3), 0..255, not rounded.
    """
    left, top, right, bottom = box

    def ends(start: float, stop: float, limit: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        at = start + (np.arange(size) + 0.5) * ((stop - start) / size) - 0.5
        at = at.clip(0, limit - 1)
        low = np.floor(at).astype(np.intp)
        return low, np.minimum(low + 1, limit - 1), (at - low).astype(np.float32)

    y0, y1, dy = ends(top, bottom, len(pixels))
    x0, x1, dx = ends(left, right, pixels.shape[1])
    dy, dx = dy[:, None, None], dx[None, :, None]
    upper = pixels[np.ix_(y0, x0)] * (1 - dx) + pixels[np.ix_(y0, x1)] * dx
    lower = pixels[np.ix_(y1, x0)] * (1 - dx) + pixels[np.ix_(y1, x1)] * dx
    return (upper * (1 - dy) + lower * dy).astype(np.float32)
