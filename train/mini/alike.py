"""Whether another photo than its own fits a caption: judged by sentence encoders, calibrated by eye.

The caption is compared with all captions of the other photo in its language. English: all-MiniLM-L6-v2, a machine
translation by the English caption it is of; Chinese: m3e-small. How often a photo of such a similarity fits was judged
by eye on hits of other photos' captions (`train/EXPERIMENTS.md`, "match").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.mini.photos import Photo
from train.mini.teachers import embed_cached

# σ(slope · similarity + intercept), and the similarity below which none fits
BY_EYE = {"en": (10.2, -6.6, 0.3), "zh": (18.5, -15.4, 0.7)}
_TEACHERS = {"en": "minilm", "zh": "m3e-small"}
_TRANSLATIONS = {"zh_mt_google": "en", "zh_mt_baidu": "en", "en": "en", "zh": "zh"}


class Alike:
    """The sentence encoders' vectors of the captions of photos.

    Args:
        photos: with `en`, and perhaps `zh`, captions.
        teachers: folder of `train.mini.teachers`.
        cache: for their vectors.
    """

    def __init__(self, photos: Sequence[Photo], teachers: Path, cache: Path) -> None:
        self._of: dict[str, list[np.ndarray]] = {}
        for language, name in _TEACHERS.items():
            groups = [photo.captions.get(language, []) for photo in photos]
            vectors = embed_cached(teachers / name, [text for group in groups for text in group], cache)
            ends = np.cumsum([len(group) for group in groups])
            self._of[language] = np.split(vectors, ends[:-1])

    def similarity(self, field: str, photo: int, caption: int, others: Sequence[int]) -> np.ndarray:
        """float (k,): of a photo's caption with the nearest caption of each other photo; NaN where it has none."""
        of = self._of[_TRANSLATIONS[field]]
        own = of[photo][caption]
        return np.array([float((of[other] @ own).max()) if len(of[other]) else np.nan for other in others])

    def chance(self, field: str, photo: int, caption: int, others: Sequence[int]) -> np.ndarray:
        """float (k,): that each of the photos fits the caption; its own does. NaN where nobody knows."""
        slope, intercept, least = BY_EYE[_TRANSLATIONS[field]]
        similar = self.similarity(field, photo, caption, others)
        chance = np.where(similar < least, 0.0, 1 / (1 + np.exp(-(slope * similar + intercept))))
        return np.where(np.asarray(others) == photo, 1.0, chance)
