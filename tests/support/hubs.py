"""Made vectors of captioned photos, with photos among them that are near to every caption, or without any."""

from __future__ import annotations

import numpy as np

DIM = 64


def made_pairs(hubs: bool, seed: int = 0, photos: int = 400, each: int = 3) -> tuple[np.ndarray, ...]:
    """Captions float32 (n, 64), photos float32 (m, 64), and the photo of each caption, int64 (n,).

    With hubs, captions share a direction, and every tenth photo leans towards it. Without, neither does.
    """
    rng = np.random.default_rng(seed)
    images = unit(rng.standard_normal((photos, DIM)))
    texts = np.repeat(images, each, 0) + 0.28 * rng.standard_normal((photos * each, DIM))
    if hubs:
        shared = np.ones(DIM) / 8
        texts += 0.6 * shared
        images[::10] += 0.9 * shared
    return unit(texts), unit(images), np.repeat(np.arange(photos), each)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Float32, unit length."""
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found
