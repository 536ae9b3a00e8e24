"""What every captioner looks like: a model that writes texts for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Encoder, Origin, Precision
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
        captions: best first, all different.
        vector: the picture's unit vector by the towers that the captioner reads, float32 (dim,); None: it reads none.
    """

    captions: list[Draft]
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

    def write(self, pixels: NDArray[np.uint8], origins: Sequence[Origin], language: str, count: int, /) -> list[Drafts]:
        """Pixels uint8 (n, S, S, 3) → captions of each picture, `count` of them or as many as it finds."""
        ...


def ranked(captions: Sequence[Draft], cosines: NDArray[np.float32], weight: float) -> list[int]:
    """The order of captions by score + weight · cosine, best first; equal ones stay in their order."""
    scores = np.array([one.score for one in captions]) + weight * cosines
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order


def load_captioner(name: str, encoder: Encoder, *, device: str = "auto", precision: Precision = "auto") -> Captioner:
    """Loads the captioner called `name`.

    Args:
        name: a bundled one, or the folder of one that `train.captions` made.
        encoder: whose image tower ours read.
        device: a torch device, or "auto".
        precision: "fp32", "bf16", or "auto": bfloat16 where the processor multiplies it natively.

    Raises:
        EncoderError: it is damaged, is no captioner, or reads another image tower.
        UsageError: there is none of this name.
    """
    from brivl_search.encoders.captions.captioner import FolderCaptioner
    from brivl_search.encoders.captions.checkpoint import is_captioner
    from brivl_search.encoders.registry import BUNDLED

    bundled = BUNDLED / name
    folder = bundled if name and "/" not in name and is_captioner(bundled) else Path(name).expanduser()
    if folder.is_file() and folder.suffix == ".safetensors":
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"no captioner {name!r}: give the folder of one", code="no_captioner")
    return FolderCaptioner(folder, encoder, name=name, device=device, precision=precision)
