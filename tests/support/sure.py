"""A confidence by which a hit is right where it stands out of its collection, for encoders of tests."""

from __future__ import annotations

import numpy as np

from brivl_search.encoders.confidence import HIT_TERMS, PAIR_TERMS, Confidence


def sure(dim: int = 32) -> Confidence:
    """Chance of a hit: σ(2 · place − extreme − 1); of every pair: a half."""
    groups = np.random.default_rng(0).standard_normal((2, 6, dim)).astype(np.float32)
    groups /= np.linalg.norm(groups, axis=2, keepdims=True)
    hit = np.zeros(len(HIT_TERMS))
    hit[[0, HIT_TERMS.index("place in collection"), HIT_TERMS.index("extreme of collection")]] = -1, 2, -1
    return Confidence(groups[0], groups[1], {"pair": np.zeros(len(PAIR_TERMS)), "image": hit, "text": hit})
