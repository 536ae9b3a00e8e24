"""The calibration's fit against scikit-learn's logistic regression, its error against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.evaluation.calibrating import expected_calibration_error, fit


def test_the_fit_is_scikit_learns_with_platts_targets() -> None:
    """Platt (1999): targets (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2). A target t is two samples of weights t and 1 − t."""
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    belongs = np.repeat([True, False], [300, 500])
    cosine = np.where(belongs, rng.normal(0.45, 0.12, 800), rng.normal(0.2, 0.12, 800))
    target = np.where(belongs, 301 / 302, 1 / 502)
    model = linear.LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000)
    model.fit(
        np.tile(cosine[:, None], (2, 1)),
        np.repeat([1, 0], 800),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    found = fit(cosine, belongs)
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert found.intercept == pytest.approx(model.intercept_[0], rel=1e-3)


def test_expected_calibration_error_of_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    rng = np.random.default_rng(0)
    probability, belongs = rng.random(1000), rng.random(1000) < 0.4
    want = torchmetrics.binary_calibration_error(
        torch.tensor(probability), torch.tensor(belongs.astype(int)), n_bins=15
    )
    assert expected_calibration_error(probability, belongs) == pytest.approx(float(want), abs=1e-6)
