"""A picture as patches in its own aspect ratio, for towers that take so many of them whatever the shape.

That is the "NaFlex" preprocessing of SigLIP 2 (arXiv 2502.14786). Decoded pictures are squares of bytes all over this
package, so the patches travel in one. They follow one another, row by row of the picture, each patch × patch × RGB. The
last four bytes hold the numbers of rows and columns.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_HEAD = 4


def square_side(patch: int, most: int) -> int:
    """Side of the smallest square of RGB pixels that holds `most` patches and their numbers."""
    needed = -(-(most * patch * patch * 3 + _HEAD) // 3)
    return math.isqrt(needed - 1) + 1


def grid(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Rows and columns of patches, at most `most` in all, that keep a picture's aspect ratio best.

    The scale is the largest that fits, found by halving as big_vision and transformers do, with their limits: another
    search would differ from theirs by a patch now and then.
    """

    def at(scale: float) -> tuple[int, int]:
        return max(math.ceil(height * scale / patch), 1), max(math.ceil(width * scale / patch), 1)

    low, high, precision = 1e-6, 100.0, 1e-5
    while high - low >= precision:
        middle = (low + high) / 2
        rows, columns = at(middle)
        low, high = (middle, high) if rows * columns <= most else (low, middle)
    return at(low)


def pack(picture: Bytes, patch: int, side: int) -> Bytes:
    """uint8 (rows · patch, columns · patch, 3) → the square (side, side, 3) that carries it."""
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    out = np.zeros(side * side * 3, dtype=np.uint8)
    tiles = picture.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    out[: picture.size] = tiles.reshape(-1)
    out[-_HEAD:] = np.array([rows, columns], dtype="<u2").view(np.uint8)
    return out.reshape(side, side, 3)


def unpack(squares: Bytes, patch: int, most: int) -> tuple[Bytes, NDArray[np.int64]]:
    """Squares (B, side, side, 3) → patches uint8 (B, most, patch · patch · 3), and rows and columns int64 (B, 2)."""
    flat = np.ascontiguousarray(squares).reshape(len(squares), -1)
    shapes = np.ascontiguousarray(flat[:, -_HEAD:]).view("<u2").astype(np.int64)
    tiles = flat[:, : most * patch * patch * 3].reshape(len(squares), most, patch * patch * 3)
    return tiles, np.maximum(shapes, 1)
