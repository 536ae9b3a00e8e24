"""Small pictures of indexed images, in their own proportions, for pages and terminals."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import PixelSpec, decode, read_file


def thumbnail(path: str, side: int) -> NDArray[np.uint8]:
    """An image of which the longer side has at most `side` pixels; smaller ones keep their size.

    Decoded with all the precautions of `images.decode`: upright, transparency on white, nothing larger than the limit.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ImageError: the image cannot be read.
    """
    return _shrunk(read_file(path), side)


def _shrunk(data: bytes, side: int) -> NDArray[np.uint8]:
    decoded = decode(data, PixelSpec(size=side))
    scale = min(1.0, side / max(decoded.width, decoded.height))
    width, height = (max(1, round(length * scale)) for length in (decoded.width, decoded.height))
    from PIL import Image

    # The square is squashed, so each of its sides only shrinks to the thumbnail's.
    shrunk = Image.fromarray(decoded.pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(shrunk)


def thumbnail_jpeg(path: str, side: int, quality: int = 80) -> bytes:
    """`thumbnail` as a JPEG file, a few kilobytes."""
    return shrink(read_file(path), side, quality)


def shrink(data: bytes, side: int, quality: int = 80) -> bytes:
    """The content of a file → `thumbnail_jpeg`. Raises ImageError."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(_shrunk(data, side)).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
