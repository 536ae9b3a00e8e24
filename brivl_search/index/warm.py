"""Bringing an index into memory while it already answers: for processes that stay, not for one query.

A fresh map costs a page fault for every page a search is the first to touch, and a read from disk for every page that
the system has dropped. Linux can fault a range in at once (MADV_POPULATE_READ, 5.14); elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

_POPULATE_READ = 22
_CHUNK = 1 << 26  # bytes faulted in by one call
SHARE = 0.5  # of the memory that is available: a larger index would push itself out again


def available() -> int:
    """Bytes that can be taken without swapping, as Linux estimates; 0 where that is not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0


def start(arrays: Sequence[NDArray[Any]]) -> threading.Thread | None:
    """Fault the arrays in, in this order, in a thread of its own; None if they are too large or the system cannot.

    Args:
        arrays: contiguous views of maps; the thread keeps them alive until it is done.
    """
    if sys.platform != "linux" or sum(array.nbytes for array in arrays) > SHARE * available():
        return None
    thread = threading.Thread(target=_fault, args=(list(arrays),), name="brivl-search-warm", daemon=True)
    thread.start()
    return thread


def _fault(arrays: list[NDArray[Any]]) -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    while arrays:
        array = arrays.pop(0)
        start, end = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE, array.ctypes.data + array.nbytes
        for at in range(start, end, _CHUNK):
            if madvise(at, min(_CHUNK, end - at), _POPULATE_READ):
                return  # an older kernel, or a file that was cut off: whoever searches it will be told
