"""What every matcher looks like: a model that reads a text and a picture together, and says how well they fit.

A matcher is too slow to search with: it has to read every pair. It re-orders the first hits of an `Encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Encoder, Origin, Precision
from brivl_search.errors import EncoderError, UsageError

Scores = NDArray[np.float32]


class Matcher(Protocol):
    """A text and a picture → one number.

    Attributes:
        name: how the user calls it.
        fingerprint: hash of all that decides a score.
        pixels: how an image file becomes what `pictures` takes.
        cosine_weight: a pair's rank is by its score + this · the cosine of the encoder's vectors.
    """

    name: str
    fingerprint: str
    pixels: PixelSpec
    cosine_weight: float

    def pictures(self, pixels: NDArray[np.uint8], origins: Sequence[Origin], /) -> list[Any]:
        """Pixels uint8 (n, S, S, 3) → what `scores` reads of each picture; it may be kept, and used again."""
        ...

    def scores(self, texts: Sequence[str], pictures: Sequence[Any], /) -> Scores:
        """Log-odds that text i and picture i belong together, float32 (n,). Equal texts are read once."""
        ...


@runtime_checkable
class KeepsRegions(Protocol):
    """A matcher whose pictures an index can keep: tokens of regions and a hub number (`index.regions`).

    Attributes:
        folder: of the matcher.
        region_sizes: most regions of a picture, and numbers of a region.
    """

    fingerprint: str
    folder: Path
    region_sizes: tuple[int, int]

    def pictures(self, pixels: NDArray[np.uint8], origins: Sequence[Origin], /) -> list[Any]:
        """As of `Matcher`; each has `tokens`, float16 (R, width), and `hub`."""
        ...

    def pictures_and_vectors(
        self, pixels: NDArray[np.uint8], origins: Sequence[Origin], /
    ) -> tuple[list[Any], NDArray[np.float32]]:
        """As `pictures`, and the encoder's unit vectors float32 (n, dim); the CNNs run once for both."""
        ...

    def picture(self, tokens: NDArray[np.float16], hub: float, /) -> Any:
        """What `scores` takes, from what was kept."""
        ...


def load_matcher(name: str, encoder: Encoder, *, device: str = "auto", precision: Precision = "auto") -> Matcher:
    """Loads the matcher called `name`.

    Args:
        name: a bundled one (brivl-mini-rerank), the folder of one that `train.one_tower` made, or hf:ORG/NAME,
            hf:FOLDER: a BLIP, BLIP-2, or ViLT of transformers.
        encoder: whose hits it is to re-order. Our own matchers read the regions of its image tower.
        device: a torch device, or "auto".
        precision: "fp32", "bf16", or "auto": bfloat16 where the processor multiplies it natively.

    Raises:
        EncoderError: it is damaged, is no matcher, or reads the regions of another image tower.
        UsageError: there is none of this name.
    """
    from brivl_search.encoders.one_tower.checkpoint import is_matcher
    from brivl_search.encoders.registry import BUNDLED

    if name.startswith("hf:"):
        from brivl_search.encoders.hf.matcher import TransformersMatcher

        return TransformersMatcher(name, device=device, precision=precision)
    folder = BUNDLED / name if name in bundled_matchers() else Path(name).expanduser()
    if folder.is_file() and folder.suffix == ".safetensors":
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(
            f"no matcher {name!r}: give {', '.join(bundled_matchers())}, the folder of one, or hf:ORG/NAME of a BLIP, "
            "BLIP-2 or ViLT",
            code="no_matcher",
        )
    if not is_matcher(folder) and _has_two_towers(folder):
        raise EncoderError(f"{folder} holds an encoder of two towers, and no matcher: give a matcher's folder")
    from brivl_search.encoders.one_tower.matcher import OneTowerMatcher

    return OneTowerMatcher(folder, encoder, name=name, device=device, precision=precision)


def bundled_matchers() -> list[str]:
    """Names of the matchers that ship with the package."""
    from brivl_search.encoders.one_tower.config import MatcherConfig
    from brivl_search.encoders.registry import bundled

    return bundled(MatcherConfig.KIND)


def _has_two_towers(folder: Path) -> bool:
    from brivl_search.encoders.brivl.checkpoint import read_config

    try:
        read_config(folder)
    except EncoderError:
        return False
    return True
