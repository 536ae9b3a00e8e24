"""Logistic regression of what is right on the terms of `brivl_search.encoders.confidence`, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from brivl_search.evaluation.calibrating import expected_calibration_error

PENALTY = 1e-3  # of a weight, whose term is scaled to spread 1


def fit(terms: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights of the terms (n, T) → (T,); the first term is 1.

    Args:
        terms: of each row.
        right: 0 to 1, the chance that a row is right.
        weight: how much each row counts.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = np.average(terms[:, 1:], axis=0, weights=weight), terms[:, 1:].std(0) + 1e-9
    scaled = (terms[:, 1:] - mean) / spread
    both = np.concatenate([scaled, scaled])
    answer = np.repeat([1, 0], len(scaled))
    share = np.concatenate([right * weight, (1 - right) * weight])
    kept = share > 0
    model = LogisticRegression(C=1 / (PENALTY * share.sum()), max_iter=2000)
    model.fit(both[kept], answer[kept], sample_weight=share[kept])
    slopes = model.coef_[0] / spread
    return np.concatenate([[model.intercept_[0] - slopes @ mean], slopes])


def crossed(
    terms: np.ndarray,
    right: np.ndarray,
    weight: np.ndarray,
    half: np.ndarray,
    chance: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The chance of each row by weights that were fitted to the other half: float (n,).

    Args:
        terms, right, weight: as of `fit`.
        half: 0 or 1; -1 is never fitted on.
        chance: (terms, weights) → σ.
    """
    found = np.empty(len(terms))
    for one in (0, 1):
        learnt = fit(terms[half == 1 - one], right[half == 1 - one], weight[half == 1 - one])
        judged = half == one if one else (half == one) | (half < 0)
        found[judged] = chance(terms[judged], learnt)
    return found


def calibration_error(chance: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """ECE of chances against rightness that may itself be a chance."""
    return expected_calibration_error(chance, right, bins)
