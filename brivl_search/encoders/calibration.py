"""From cosine to probability: p(pair belongs together) = σ(slope · cosine + intercept), Platt's logistic map.

The probability is of a text and a picture drawn so that half of such draws are true pairs: 0.5 is a score that true and
random pairs reach equally often. It is no share of a collection's pictures that match.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
