"""The device and the precision that a tower runs in."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

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


@cache
def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory instead of returning it to the kernel after every layer.

    Otherwise the activations of a CPU forward pass are mapped and unmapped, and clearing their pages takes much of its
    time. The cost: the process keeps its peak of memory, about 1 GB for brivl-mini with batches of 64.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def few_heaps() -> None:
    """Tells glibc to use two heaps for all threads instead of eight per core, each of which keeps its own peak.

    For a process with many threads. Call it before they start.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (AVX512-BF16 or AMX; CUDA from Ampere on)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:
            return False
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False
