"""What glibc does with memory that was freed: kept where it is soon needed again, given back where it is not."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache


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


def give_back() -> None:
    """Gives the system what was freed and not taken again. It takes some milliseconds, and as many again to take it."""
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
