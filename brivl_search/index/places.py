"""Where the large values of a shard lie in its file, so that opening it reads none of them.

py-lmdb touches every page of a value that it hands out. LMDB keeps a large value in consecutive pages and maps the
file as one piece, so its address follows from where it lies and from the address of any other value, `meta` for one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from brivl_search.index.store import Environment

ANCHOR = b"meta"
LARGE = (b"columns", b"ivfpq", b"lists", b"sums", b"vectors")
_CHUNK = 1 << 24


class Mapped:
    """Bytes of a map as NumPy's array interface, owning what keeps the map in place."""

    def __init__(self, address: int, size: int, *owners: Any) -> None:
        self.owners = owners
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}


def address(value: memoryview) -> int:
    """Where a buffer begins in memory."""
    return int(np.frombuffer(value, dtype=np.uint8).ctypes.data)


def locate(environment: Environment, path: Path) -> dict[str, list[int]]:
    """[offset, bytes] of `meta` and of each large value, compared with the file; {} if they are not found.

    Args:
        environment: open on the file, nothing unwritten in it.
        path: the file.
    """
    with environment.read(buffers=True) as txn, path.open("rb") as content:
        found = {key: txn.get(key) for key in (*LARGE, ANCHOR)}
        values = {key: np.frombuffer(value, dtype=np.uint8) for key, value in found.items() if value is not None}
        anchor = values[ANCHOR]
        for at in _found(content, anchor.tobytes()):  # pages that LMDB has replaced may hold it as well
            offsets = {key: at + value.ctypes.data - anchor.ctypes.data for key, value in values.items()}
            if all(_equal(content, offsets[key], value) for key, value in values.items()):
                return {key.decode(): [offset, values[key].nbytes] for key, offset in offsets.items()}
    return {}


def _found(content: BinaryIO, wanted: bytes) -> Iterator[int]:
    """Offsets of some bytes in a file, which is read, not mapped: a map counts as memory in use."""
    start, kept = 0, b""
    while True:
        content.seek(start + len(kept))
        chunk = content.read(_CHUNK)
        if not chunk:
            return
        text = kept + chunk
        at = text.find(wanted)
        while at >= 0:
            yield start + at
            at = text.find(wanted, at + 1)
        kept = text[max(0, len(text) - len(wanted) + 1) :]
        start += len(text) - len(kept)


def _equal(content: BinaryIO, offset: int, value: NDArray[np.uint8]) -> bool:
    if offset < 0:
        return False
    content.seek(offset)
    return all(
        content.read(len(value[at : at + _CHUNK])) == value[at : at + _CHUNK].tobytes()
        for at in range(0, len(value), _CHUNK)
    )


def base(places: dict[str, list[int]], anchor: memoryview, size: int) -> int | None:
    """Where the map of a shard begins in memory; None if the places cannot be those of a file of `size` bytes."""
    inside = all(0 <= offset <= offset + length <= size for offset, length in places.values())
    start = address(anchor) - places[ANCHOR.decode()][0] if inside and places else -1
    return start if start > 0 and start % mmap.PAGESIZE == 0 else None
