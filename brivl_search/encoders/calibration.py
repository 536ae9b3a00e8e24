"""From cosine to probability: p(the pair belongs together) = σ(slope · cosine + intercept).

This is Platt scaling ("Probabilistic Outputs for Support Vector Machines", 1999). The probability is that of a text and
a picture which are a true pair in half of the draws: at 0.5, true and random pairs reach this cosine equally often. It
is not the share of a collection's pictures that match.

An encoder may bring a calibration with its weights. One that a user has measured (`models calibrate`) lies in a file of
the user's data folder, by the encoder's fingerprint, and is used instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brivl_search.encoders import places
from brivl_search.errors import EncoderError


@dataclass(frozen=True)
class Calibration:
    """A logistic map from the cosine of a text and a picture to a probability.

    Attributes:
        slope: a number; cosines are −1 to 1.
        intercept: a number.
    """

    slope: float
    intercept: float

    @classmethod
    def from_config(cls, values: Mapping[str, float] | None) -> Calibration | None:
        """Reads the `calibration` of a config.json; None gives None.

        Raises:
            EncoderError: slope or intercept is missing, or not a number.
        """
        if values is None:
            return None
        try:
            found = cls(float(values["slope"]), float(values["intercept"]))
            if not (math.isfinite(found.slope) and math.isfinite(found.intercept)):
                raise ValueError
            return found
        except (KeyError, TypeError, ValueError):
            raise EncoderError(f"config.json: calibration needs slope and intercept, not {dict(values)}") from None

    def probability(self, cosine: float) -> float:
        """The probability, 0 to 1, that a text and a picture of this cosine belong together."""
        z = min(max(self.slope * cosine + self.intercept, -60.0), 60.0)
        return 1 / (1 + math.exp(-z))


def path_of(fingerprint: str) -> Path:
    """The user's file for an encoder: $XDG_DATA_HOME/brivl-search/calibrations/FINGERPRINT.json.

    XDG_DATA_HOME is ~/.local/share where it is not set.
    """
    return places.of_vectors(fingerprint, ".json")


def saved(fingerprint: str) -> Calibration | None:
    """The user's calibration of an encoder; None if there is none.

    Raises:
        EncoderError: the file cannot be read.
    """
    path = path_of(fingerprint)
    try:
        return Calibration.from_config(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, AttributeError, EncoderError) as error:
        raise EncoderError(f"{path} is no calibration ({error}): delete it") from None


def save(fingerprint: str, values: Mapping[str, float]) -> Path:
    """Writes the user's file for an encoder and returns its path.

    Args:
        fingerprint: of the encoder.
        values: slope, intercept, and what else `fit_and_judge` found.

    Raises:
        BrivlSearchError: the file cannot be written.
    """
    return places.write(path_of(fingerprint), f"{json.dumps(dict(values))}\n".encode())


def forget(fingerprint: str) -> bool:
    """Deletes the user's file for an encoder. False if there was none."""
    return places.forget(path_of(fingerprint))
