"""Which pictures of a crawl may be trained on, and which are near-duplicates: a perceptual hash of 64 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brivl_search.corpus.phash import HASH_SIDE as HASH_SIDE
from brivl_search.corpus.phash import perceptual_hash as perceptual_hash
from brivl_search.corpus.phash import to_grey as to_grey

MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ImageRules:
    """Thresholds.

    Attributes:
        min_side: least width and height in pixels.
        max_aspect: largest ratio of the longer to the shorter side: banners, rulers, long screenshots.
        min_contrast: least standard deviation of the grey values (0 to 255) at 32 × 32: empty pictures.
        distance: bits in which the hashes of near-duplicates may differ, at most 7; -1 keeps duplicates.
        max_megapixels: larger ones are not decoded.
    """

    min_side: int = 100
    max_aspect: float = 4.0
    min_contrast: float = 3.0
    distance: int = 3
    max_megapixels: float = 178.0

    def __post_init__(self) -> None:
        if not -1 <= self.distance <= 7:
            raise ValueError(f"image.distance = {self.distance}: it may be -1 (off) to 7")


def too_small(width: int, height: int, rules: ImageRules) -> bool:
    return min(width, height) < rules.min_side


def extreme_aspect(width: int, height: int, rules: ImageRules) -> bool:
    return max(width, height) > rules.max_aspect * min(width, height)


def empty(grey: np.ndarray, rules: ImageRules) -> bool:
    """`grey`: float (32, 32)."""
    return float(grey.std()) < rules.min_contrast


def bands(code: int) -> list[int]:
    """The four 16-bit bands of a hash, each with its number above it."""
    return [band << 16 | (code >> (16 * band)) & 0xFFFF for band in range(4)]


def probes(code: int, distance: int) -> list[int]:
    """Bands under which every hash within `distance` (at most 7) bits is found.

    Of four bands one differs in at most ⌊distance / 4⌋ bits (multi-index hashing; Norouzi, Punjani & Fleet, 2012): 4
    look-ups up to 3 bits, 68 up to 7.
    """
    exact = bands(code)
    return exact if distance < 4 else [band ^ bit for band in exact for bit in (0, *(1 << i for i in range(16)))]
