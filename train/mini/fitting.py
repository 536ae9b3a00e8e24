"""Logistic regression of what is right on the terms of `brivl_search.encoders.confidence`, and how far to trust it."""

from __future__ import annotations

import numpy as np

from brivl_search.encoders.confidence import Chances

PENALTY = 1e-3  # of a squared slope


def fit(terms: np.ndarray, right: np.ndarray, weight: np.ndarray) -> Chances:
    """The map from terms (n, T) to chances.

    Args:
        terms: of each row.
        right: 0 to 1, the chance that a row is right.
        weight: how much each row counts.
    """
    from sklearn.linear_model import LogisticRegression

    centre, scale = np.average(terms, axis=0, weights=weight), terms.std(0) + 1e-9
    features = Chances.features(terms, centre, scale)
    share = np.concatenate([right * weight, (1 - right) * weight])
    kept = share > 0
    model = LogisticRegression(C=1 / (PENALTY * share.sum()), max_iter=1000)
    model.fit(
        np.concatenate([features, features])[kept], np.repeat([1, 0], len(features))[kept], sample_weight=share[kept]
    )
    return Chances(centre, scale, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def crossed(terms: np.ndarray, right: np.ndarray, weight: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The chance of each row by a map that was fitted to the other half: float (n,).

    Args:
        terms, right, weight: as of `fit`.
        half: 0 or 1.
    """
    found = np.empty(len(terms))
    for judged in (half == 0, half == 1):
        found[judged] = fit(terms[~judged], right[~judged], weight[~judged])(terms[judged])
    return found
