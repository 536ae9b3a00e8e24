"""Pictures for models of transformers that have a processor of their own: it gets them in their proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Origin
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True)
class Shown:
    """A picture: pixels uint8 (S, S, 3), squashed, and its own size."""

    pixels: NDArray[np.uint8]
    width: int
    height: int

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def shown(pixels: NDArray[np.uint8], origins: Sequence[Origin]) -> list[Shown]:
    """Pixels uint8 (n, S, S, 3) with the sizes of their pictures."""
    return [Shown(square, origin.width, origin.height) for square, origin in zip(pixels, origins, strict=True)]


@dataclass(frozen=True)
class Seen:
    """How a processor sizes pictures.

    Attributes:
        squashes: to a square of `side`; else `side` is the short side, and proportions stay.
        side: in pixels.
    """

    squashes: bool
    side: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Seen:
        """By preprocessor_config.json.

        Raises:
            EncoderError: the settings say neither.
        """
        size = settings.get("size")
        if isinstance(size, int):
            return cls(False, size)
        if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
            return cls(False, int(size["shortest_edge"]))
        if isinstance(size, dict) and isinstance(size.get("height"), int) and size.get("width") == size["height"]:
            return cls(True, int(size["height"]))
        raise EncoderError(f"the model's image preprocessing is not supported: size is {size}")

    @property
    def pixels(self) -> PixelSpec:
        """How files are decoded: pictures that keep their proportions are decoded larger, and given them back."""
        return PixelSpec(self.side if self.squashes else 2 * self.side, "squash", "bicubic")

    def picture(self, one: Shown) -> Image:
        """What the processor is given."""
        from PIL import Image

        square = Image.fromarray(one.pixels)
        if self.squashes or one.width == one.height or not (one.width and one.height):
            return square
        scale = self.side / min(one.width, one.height)
        size = (max(1, round(one.width * scale)), max(1, round(one.height * scale)))
        return square.resize(size, Image.Resampling.BICUBIC)


def load_all(folder: Path, kinds: Sequence[str], what: str, device: torch.device) -> list[Any]:
    """Processors and the model, in eval mode.

    Args:
        folder: of the model.
        kinds: classes of transformers; the model's is the last.
        what: the model, for messages.
        device: where it computes.

    Raises:
        EncoderError: a file is missing or damaged.
    """
    import transformers

    try:
        found = [getattr(transformers, kind).from_pretrained(folder, local_files_only=True) for kind in kinds]
    except Exception as error:  # whatever a damaged file makes of it
        said = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise EncoderError(f"{what} cannot be loaded: {said}") from None
    return [*found[:-1], found[-1].to(device).eval()]
