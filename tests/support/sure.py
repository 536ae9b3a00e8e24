"""A confidence by which a hit is right where it stands out of its collection, for encoders of tests."""

from __future__ import annotations

import numpy as np

from brivl_search.encoders.confidence import HIT_TERMS, PAIR_TERMS, Chances, Confidence


def chances(terms: tuple[str, ...], bias: float, **slopes: float) -> Chances:
    """Linear in some terms; nothing is far enough out to be cut."""
    count = len(terms)
    found = np.zeros(count + count * (count + 1) // 2)
    for name, slope in slopes.items():
        found[terms.index(name.replace("_", " "))] = 100 * slope
    return Chances(np.zeros(count), np.full(count, 100.0), found, bias)


def sure(dim: int = 32) -> Confidence:
    """Chance of a hit: σ(2 · place − extreme − 1); of every pair: a half."""
    groups = np.random.default_rng(0).standard_normal((3, 6, dim)).astype(np.float32)
    groups /= np.linalg.norm(groups, axis=2, keepdims=True)
    hit = chances(HIT_TERMS, -1, place_in_collection=2, extreme_of_collection=-1)
    return Confidence(*groups, {"pair": chances(PAIR_TERMS, 0), "image": hit, "text": hit})
