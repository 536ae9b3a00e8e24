"""What this machine computes with, told without importing torch."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    return "avx512_bf16" in _cpuinfo() or "amx_bf16" in _cpuinfo()


def cpu_name() -> str:
    """The CPU, its matrix instructions and its number of cores: what a measured speed is good for."""
    model = next((line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if "model name" in line), "")
    kinds = [kind for kind in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16") if kind in _cpuinfo()]
    return (
        f"{model or platform.processor() or platform.machine()} ({', '.join(kinds) or 'plain'}), {os.cpu_count()} cores"
    )


def has_gpu() -> bool:
    """Whether torch would probably find a GPU here: NVIDIA's driver, or Apple's processors."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    nvidia = Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists()
    return (nvidia and not hidden) or (platform.system() == "Darwin" and platform.machine() == "arm64")
