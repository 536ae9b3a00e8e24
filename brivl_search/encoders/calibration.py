"""From cosine to probability: p(pair belongs together) = σ(slope · cosine + intercept), Platt's logistic map.

The probability is of a text and a picture drawn so that half of such draws are true pairs: 0.5 is a score that true and
random pairs reach equally often. It is no share of a collection's pictures that match.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brivl_search.errors import EncoderError


@dataclass(frozen=True)
class Calibration:
    """A checkpoint's logistic map."""

    slope: float
    intercept: float

    @classmethod
    def from_config(cls, values: Mapping[str, float] | None) -> Calibration | None:
        """The map in a config.json's `calibration`, None where the model has none.

        Raises:
            EncoderError: there is one, and slope or intercept is missing or no number.
        """
        if values is None:
            return None
        try:
            return cls(float(values["slope"]), float(values["intercept"]))
        except (KeyError, TypeError, ValueError):
            raise EncoderError(f"config.json: calibration needs slope and intercept, not {dict(values)}") from None

    def probability(self, cosine: float) -> float:
        """0 to 1."""
        z = min(max(self.slope * cosine + self.intercept, -60.0), 60.0)
        return 1 / (1 + math.exp(-z))


def expected_calibration_error(probability: np.ndarray, belongs: np.ndarray, bins: int = 15) -> float:
    """Σ_b (n_b/n) · |mean probability − share that belongs| over `bins` equally wide bins (Guo et al., ICML 2017).

    Args:
        probability: float (n,), 0 to 1.
        belongs: bool (n,).
    """
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    gaps = np.abs(np.bincount(bin_of, probability, bins) - np.bincount(bin_of, belongs.astype(np.float64), bins))
    return float(gaps[counts > 0].sum() / len(probability))


def fit(cosine: np.ndarray, belongs: np.ndarray, steps: int = 50) -> Calibration:
    """Logistic regression of `belongs` on `cosine` by Newton's method, with Platt's smoothed targets.

    Args:
        cosine: float64 (n,).
        belongs: bool (n,), both values in it.
        steps: at most.
    """
    positives, negatives = int(belongs.sum()), int((~belongs).sum())
    target = np.where(belongs, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([cosine, np.ones_like(cosine)], 1)
    weights = np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (p - target))
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(float(weights[0]), float(weights[1]))


def fit_and_judge(cosine: np.ndarray, belongs: np.ndarray, photo: np.ndarray) -> dict[str, float]:
    """The map of all pairs, and how far to trust it: what a map fitted on half of the photos says of the other half.

    Args:
        cosine: float64 (n,).
        belongs: bool (n,).
        photo: int (n,), of each pair; no photo is in both halves.

    Returns:
        What goes into config.json: slope, intercept, ece (expected calibration error), pairs (their number).
    """
    probability = np.empty_like(cosine)
    for half in (0, 1):
        judged = photo % 2 == half
        learnt = fit(cosine[~judged], belongs[~judged])
        probability[judged] = [learnt.probability(c) for c in cosine[judged]]
    final = fit(cosine, belongs)
    ece = expected_calibration_error(probability, belongs)
    return {"slope": final.slope, "intercept": final.intercept, "ece": round(ece, 4), "pairs": float(len(cosine))}


def true_and_random_pairs(
    texts: np.ndarray, images: np.ndarray, owners: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every text with its own image and with another one drawn at random.

    Args:
        texts: float32 (n, dim), unit length.
        images: float32 (m, dim), unit length.
        owners: int (n,), the image of each text.
        seed: of the draw.

    Returns:
        What `fit_and_judge` takes, (2n,) each, the true pairs first: cosine, belongs, photo.
    """
    others = (owners + np.random.default_rng(seed).integers(1, len(images), len(owners))) % len(images)
    cosine = np.concatenate([(texts * images[owners]).sum(1), (texts * images[others]).sum(1)])
    return cosine.astype(np.float64), np.repeat([True, False], len(owners)), np.concatenate([owners, owners])
