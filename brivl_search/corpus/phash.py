"""A perceptual hash: bits by which pictures that look the same are told from those that only mean the same.

pHash (Zauner, 2010): the signs of the lowest DCT coefficients of a small grey picture. On the same grey picture it is
bit for bit that of the ImageHash library. Training's pairs are compared by 64 bits. Search compares by 256, because
pages of text with one layout differ in few of the coarse bits.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 32
"""Pictures are hashed to 64 bits at 32 × 32 pixels; `PixelSpec(HASH_SIDE)` makes them so."""
LOOK_SIDE = 64
"""And to 256 bits at 64 × 64."""
LOOK_BITS = 256


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (n, n, 3) → float32 (n, n), ITU-R 601 luma."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


@functools.cache
def _cosines(side: int) -> NDArray[np.float32]:
    """The first quarter of the rows of the DCT-II of `side` points, (side / 4, side)."""
    k, n = np.arange(side // 4)[:, None], np.arange(side)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * side)).astype(np.float32)


def perceptual_hash(grey: NDArray[np.float32]) -> int:
    """Which of the lowest DCT coefficients exceed their median: n² / 16 bits, 64 of a side of 32 and 256 of one of 64.

    Half of the bits are always set, so hashes spread evenly over the bands that near-duplicates are looked up by.
    Scaling, compression and small changes of colour move few bits.

    Args:
        grey: float (n, n), n a multiple of 4.
    """
    cosines = _cosines(len(grey))
    low = cosines @ grey @ cosines.T
    middle = low.size // 2
    below, above = np.partition(low.reshape(-1), (middle - 1, middle))[middle - 1 : middle + 1]
    bits = (low > (below + above) / 2).reshape(-1)  # the median; NumPy's own takes longer than all the rest
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def look(pixels: NDArray[np.uint8]) -> str:
    """How a picture looks: its hash of 256 bits, 64 hex digits.

    Args:
        pixels: uint8 (n, n, 3), RGB, the whole picture squashed to a square.
    """
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L")
    if len(pixels) != LOOK_SIDE:
        grey = grey.resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BILINEAR)
    return f"{perceptual_hash(np.asarray(grey, np.float32)):064x}"


def distance(one: str, other: str) -> int:
    """Bits in which two hashes differ. Raises ValueError: one is no hash."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
