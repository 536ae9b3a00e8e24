"""The device and the precision that a tower runs in."""

from __future__ import annotations

import torch

from brivl_search.encoders.cpu import multiplies_bf16
from brivl_search.errors import UsageError


def pick_device(name: str) -> torch.device:
    """A torch device by name; "auto": a CUDA GPU, else Apple's, else the CPU.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"`device` {name!r} cannot be used here ({reason}): give cpu or auto") from None
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (AVX512-BF16 or AMX; CUDA from Ampere on)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and multiplies_bf16()
