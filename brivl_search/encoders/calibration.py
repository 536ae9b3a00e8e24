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
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brivl_search.errors import BrivlSearchError, EncoderError


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
            return cls(float(values["slope"]), float(values["intercept"]))
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
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in fingerprint)
    return Path(base) / "brivl-search" / "calibrations" / f"{safe}.json"


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
    path = path_of(fingerprint)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(dict(values)) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise BrivlSearchError(f"{path} cannot be written: {error.strerror}: set XDG_DATA_HOME to a folder") from None
    return path


def forget(fingerprint: str) -> bool:
    """Deletes the user's file for an encoder. False if there was none."""
    path = path_of(fingerprint)
    if not path.is_file():
        return False
    path.unlink()
    return True


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
