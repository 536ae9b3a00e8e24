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
from brivl_search.errors import EncoderError, UsageError


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


def load_captioner(
    name: str, encoder: Encoder | None, *, device: str = "auto", precision: Precision = "auto"
) -> Captioner:
    """Loads the captioner called `name`.

    Args:
        name: a bundled one, the folder of one that `train.captions` made, or hf:ORG/NAME, hf:FOLDER: a BLIP, BLIP-2,
            GIT or encoder-decoder of transformers.
        encoder: whose image tower ours read; None: one that reads none is asked for.
        device: a torch device, or "auto".
        precision: "fp32", "bf16", or "auto": bfloat16 where the processor multiplies it natively.

    Raises:
        EncoderError: it is damaged, is no captioner, or reads another image tower.
        UsageError: there is none of this name.
    """
    from brivl_search.encoders.captions.captioner import FolderCaptioner
    from brivl_search.encoders.captions.checkpoint import is_captioner

    if name.startswith("hf:"):
        from brivl_search.encoders.hf.captioner import TransformersCaptioner

        return TransformersCaptioner(name, device=device, precision=precision)
    folder = _folder(name)
    if not folder.is_dir():
        known = ", ".join(bundled_captioners())
        raise UsageError(
            f"no captioner {name!r}: give {known + ', ' if known else ''}the folder of one that train.captions made, "
            "or hf:ORG/NAME of a BLIP, BLIP-2 or GIT",
            code="no_captioner",
        )
    if not is_captioner(folder):
        raise EncoderError(f"{folder} holds no captioner: give the folder of one, with a config.json that says so")
    if encoder is None:
        raise UsageError(f"captioner {name} reads the regions of an encoder: give its `encoder`")
    return FolderCaptioner(folder, encoder, name=name, device=device, precision=precision)


def check_languages(captioner: Captioner, languages: Sequence[str]) -> None:
    """Raises UsageError: the captioner does not write in one of the languages."""
    if other := [one for one in languages if one not in captioner.languages]:
        raise UsageError(
            f"captioner {captioner.name} does not write in {other[0]!r}: it writes in {', '.join(captioner.languages)}",
            code="no_language",
        )


def bundled_captioners() -> list[str]:
    """Names of the captioners that ship with the package."""
    from brivl_search.encoders.captions.checkpoint import is_captioner
    from brivl_search.encoders.registry import BUNDLED

    return sorted(folder.name for folder in BUNDLED.iterdir() if is_captioner(folder)) if BUNDLED.is_dir() else []


def default_captioner() -> str:
    """The captioner that is used where none is named.

    Raises:
        UsageError: none ships with this copy.
    """
    if not (known := bundled_captioners()):
        raise UsageError(
            "no captioner is bundled with this copy: give `captioner`, the folder of one that train.captions made or "
            "hf:ORG/NAME of a BLIP, BLIP-2 or GIT",
            code="no_captioner",
        )
    return known[0]


def _folder(name: str) -> Path:
    from brivl_search.encoders.registry import BUNDLED

    folder = BUNDLED / name if name in bundled_captioners() else Path(name).expanduser()
    return folder.parent if folder.is_file() and folder.suffix == ".safetensors" else folder
