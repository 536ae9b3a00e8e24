"""Where a model of torch computes, and whether in bfloat16: the same for encoders, matchers and captioners."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from brivl_search.encoders.base import Precision

if TYPE_CHECKING:
    import torch


class OnDevice:
    """Base of what computes with torch; making one does not import it.

    A subclass sets what was asked for: `_device`, a torch device or "auto" (the GPU where there is one), and
    `_precision`, of which "auto" is bfloat16 where the processor multiplies it natively.
    """

    _device: str
    _precision: Precision

    @cached_property
    def device(self) -> torch.device:
        """The torch device of the model.

        Raises:
            UsageError: it does not exist here.
        """
        from brivl_search.encoders.device import pick_device

        return pick_device(self._device)

    @cached_property
    def _autocast(self) -> bool:
        from brivl_search.encoders.device import has_fast_bf16

        return self._precision == "bf16" or (self._precision == "auto" and has_fast_bf16(self.device))
