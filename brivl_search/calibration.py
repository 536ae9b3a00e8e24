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
