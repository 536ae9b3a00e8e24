"""Cosines as people see them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Score = TypeVar("Score", float, NDArray[Any])


def bounded(score: Score) -> Score:
    """A cosine, or an array of them, between -1 and 1: rounded unit vectors give 1.0001 for a picture and itself.

    Minus infinity, which stands for "no row", stays.
    """
    if isinstance(score, float):
        return score if score == float("-inf") else max(-1.0, min(1.0, score))
    return np.where(np.isneginf(score), score, score.clip(-1, 1))
