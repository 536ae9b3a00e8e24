"""What the encoders that run on torch share: device, precision, batches, and which inputs they take.

A tower that was exported (`brivl_search.encoders.runtimes`) computes in the place of torch's.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.on_device import OnDevice
from brivl_search.encoders.truncate import cut
from brivl_search.encoders.two_towers import TwoTowers
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    from brivl_search.encoders.runtimes.choice import Side
    from brivl_search.encoders.runtimes.exports import Exports, Tower
    from brivl_search.encoders.runtimes.graph import Exportable
    from brivl_search.encoders.runtimes.tokens import Reading

# OpenMP threads that wait by spinning take the cores that decode the next pictures. Read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class TorchEncoder(OnDevice, TwoTowers):
    """Base of the encoders here (see `brivl_search.encoders.base.LoadedEncoder`). Making one does not import torch.

    A subclass sets `dim` and `fingerprint` and does the forward passes.
    """

    def __init__(self, name: str, pixels: PixelSpec, *, device: str, precision: Precision, batch_size: int) -> None:
        """Keeps the settings.

        Args:
            name: how the user calls the encoder.
            pixels: how a picture becomes the tower's pixels.
            device: a torch device, or "auto": the GPU where there is one.
            precision: "auto": bfloat16 where the processor multiplies it natively, else float32.
            batch_size: pictures or texts per forward pass.
        """
        super().__init__(name, pixels, batch_size=batch_size)
        self.exports: Exports | None = None  # `load_encoder` sets it; None: torch computes all
        self._device, self._precision = device, precision

    @property
    def asked_device(self) -> str:
        """The device as it was asked for; torch is not imported."""
        return self._device

    def expect(self, images: int) -> None:
        """Says how many pictures will be embedded: for many, exporting the towers may pay."""
        if self.exports is not None:
            self.exports.expect(images)

    def exportable(self, side: Side) -> Exportable:
        """One side as a module that can be exported.

        Raises:
            EncoderError: it cannot be.
        """
        raise EncoderError(f"{self.name} cannot be exported: {type(self).__name__} has no plain towers")

    def tokenized(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """A batch of texts, as `spelled` gives them, → the inputs of the exported text tower by name, (n, T)."""
        raise NotImplementedError

    def save_tokens(self, folder: Path) -> Reading | None:
        """Writes the tokenizer for an export; None if the `tokenizers` library alone cannot do what it does."""
        return None

    def _exported(self, side: Side) -> Tower | None:
        return None if self.exports is None else self.exports.tower(side)

    def _encode_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        """uint8 RGB (n, S, S, 3), and where they come from if that is known, → float32 (n, dim), unit length."""
        tower = self._exported("image") if len(pixels) and pixels.dtype == np.uint8 else None
        return self._torch_pixels(pixels, origins) if tower is None else self._exported_images(tower, pixels)

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tower = self._exported("text") if texts else None
        if tower is None:
            return self._torch_texts(texts)
        spelled = self.spelled(texts)
        order = sorted(range(len(spelled)), key=lambda at: len(spelled[at]))
        out = np.empty((len(spelled), self.dim), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            out[rows] = cut(tower.texts(self.tokenized([spelled[at] for at in rows])), self.dim)
        return self._finished(out, "text")

    def _exported_images(self, tower: Tower, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._finished(cut(tower.images(pixels), self.dim), "image")

    def _finished(self, vectors: NDArray[np.float32], side: Side) -> NDArray[np.float32]:
        """Unit vectors (n, dim) of a tower → what `encode_images` and `encode_texts` return."""
        return vectors

    @abstractmethod
    def _torch_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        """As `_encode_pixels`, by torch."""

    @abstractmethod
    def _torch_texts(self, texts: Sequence[str]) -> NDArray[np.float32]: ...
