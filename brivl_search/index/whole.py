"""Was an LMDB file cut short? LMDB maps it, and touching a page behind the end of a file kills the process (SIGBUS).

A copy onto a full disk leaves such files. The newest meta page says how many pages there are. A file that is shorter
can still be whole: LMDB does not write pages that it gave up again. Then the tree is walked, which is rare.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_MAGIC = 0xBEEFC0DE
_HEAD = struct.Struct("<QHHHH")  # of a page: number, pad, flags, end of the pointers, beginning of the nodes
_META = struct.Struct("<IIQQ")  # behind a meta page's head: magic, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # pad (of the first tree: the size of a page), flags, depth, counts, root
_LAST = struct.Struct("<QQ")  # number of the last page, of the transaction
_NODE = struct.Struct("<HHHH")  # size or page, in three parts; bytes of the key
_BRANCH, _LEAF, _BIG = 1, 2, 1
_NONE = (1 << 64) - 1


def is_cut(path: Path) -> bool:
    """Is the file shorter than what its newest transaction refers to? False for what is no LMDB file at all.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        found = _newest(file)
        size = os.fstat(file.fileno()).st_size  # after the meta page: a writer writes that last
        if found is None:
            return False
        page, roots, last = found
        if (last + 1) * page <= size:
            return False
        return _refers_beyond(file, page, roots, size)


def _read(file: BinaryIO, size: int, at: int) -> bytes:
    file.seek(at)  # `os.pread` is not to be had on Windows
    return file.read(size)


def _newest(file: BinaryIO) -> tuple[int, list[int], int] | None:
    """(bytes of a page, roots of both trees, last page) of the newest transaction."""
    first = _meta(file, 0)
    if first is None:
        return None
    both = [one for one in (first, _meta(file, first[1])) if one is not None]
    return max(both)[1:]


def _meta(file: BinaryIO, at: int) -> tuple[int, int, list[int], int] | None:
    """(transaction, bytes of a page, roots, last page)."""
    raw = _read(file, _HEAD.size + _META.size + 2 * _TREE.size + _LAST.size, at)
    try:
        if _META.unpack_from(raw, _HEAD.size)[0] != _MAGIC:
            return None
        start = _HEAD.size + _META.size
        free, main = (_TREE.unpack_from(raw, start + number * _TREE.size) for number in (0, 1))
        last, transaction = _LAST.unpack_from(raw, start + 2 * _TREE.size)
    except struct.error:
        return None
    return transaction, free[0], [free[-1], main[-1]], last


def _refers_beyond(file: BinaryIO, page: int, roots: list[int], size: int) -> bool:
    """Does a tree refer to a page that does not lie in the file?"""
    left = [root for root in roots if root != _NONE]
    while left:
        number = left.pop()
        if (number + 1) * page > size:
            return True
        raw = _read(file, page, number * page)
        _, _, flags, lower, _ = _HEAD.unpack_from(raw)
        if not flags & (_BRANCH | _LEAF):
            continue  # damage of another kind, which LMDB names
        for (at,) in struct.iter_unpack("<H", raw[_HEAD.size : max(min(lower, page), _HEAD.size) & ~1]):
            if at + _NODE.size > page:
                continue
            low, high, third, key = _NODE.unpack_from(raw, at)
            if flags & _BRANCH:
                left.append(low | high << 16 | third << 32)
            elif third & _BIG and at + _NODE.size + key + 8 <= page:
                (start,) = struct.unpack_from("<Q", raw, at + _NODE.size + key)
                if start * page + _HEAD.size + (low | high << 16) > size:
                    return True
    return False
