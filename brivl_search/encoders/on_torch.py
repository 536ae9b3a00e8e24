"""What the encoders that run on torch share: device, precision and batches."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Precision
from brivl_search.encoders.two_towers import TwoTowers

if TYPE_CHECKING:
    import torch

# OpenMP threads that wait by spinning take the cores that decode the next pictures. Read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class TorchEncoder(TwoTowers):
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
        self._device, self._precision = device, precision

    @cached_property
    def device(self) -> torch.device:
        """The torch device of the towers.

        Raises:
            UsageError: it does not exist here.
        """
        from brivl_search.encoders.device import pick_device

        return pick_device(self._device)

    @cached_property
    def _autocast(self) -> bool:
        from brivl_search.encoders.device import has_fast_bf16

        return self._precision == "bf16" or (self._precision == "auto" and has_fast_bf16(self.device))
