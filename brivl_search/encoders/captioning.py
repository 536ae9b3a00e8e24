"""What every captioner looks like: a model that writes texts for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Origin
from brivl_search.errors import UsageError


@dataclass(frozen=True)
class Draft:
    """A caption that a captioner wrote.

    Attributes:
        text: the caption.
        score: the model's own: log-probabilities over the length to a power; higher is better.
    """

    text: str
    score: float


@dataclass(frozen=True)
class Drafts:
    """What a captioner wrote for a picture.

    Attributes:
        captions: of each language, best first, all different.
        vector: the picture's unit vector by the towers that the captioner reads, float32 (dim,); None: it reads none.
    """

    captions: dict[str, list[Draft]]
    vector: NDArray[np.float32] | None = None


class Captioner(Protocol):
    """Pictures → captions.

    Attributes:
        name: how the user calls it.
        fingerprint: hash of all that decides a caption.
        pixels: how an image file becomes what `write` takes.
        languages: it writes in: "zh", "en".
        cosine_weight: a caption's rank is by its score + this · the cosine of the towers.
    """

    name: str
    fingerprint: str
    pixels: PixelSpec
    languages: tuple[str, ...]
    cosine_weight: float

    def write(
        self, pixels: NDArray[np.uint8], origins: Sequence[Origin], languages: Sequence[str], count: int, /
    ) -> list[Drafts]:
        """Pixels uint8 (n, S, S, 3) → captions of each picture, `count` in each language or as many as it finds."""
        ...


def ranked(captions: Sequence[Draft], cosines: NDArray[np.float32], weight: float) -> list[int]:
    """The order of captions by score + weight · cosine, best first; equal ones stay in their order."""
    scores = np.array([one.score for one in captions]) + weight * cosines
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order


def check_languages(captioner: Captioner, languages: Sequence[str]) -> None:
    """Raises UsageError: the captioner does not write in one of the languages."""
    if other := [one for one in languages if one not in captioner.languages]:
        raise UsageError(
            f"captioner {captioner.name} does not write in {other[0]!r}: it writes in {', '.join(captioner.languages)}",
            code="no_language",
        )
