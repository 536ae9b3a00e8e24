"""A catalog where LMDB's reader table cannot be used: a private copy of one transaction, checked after copying.

A reader that is not in the table is unknown to a writer, which may write over the pages that it reads. Such a reader
sees a torn tree: LMDB gives too few items, or aborts the process. This happens on a read-only mount (a container's
`:ro`) of an index that another process writes.

So the file is copied page by page, which needs no tree. LMDB never touches pages of the newest transaction before the
one after it is published. The copy is right if the newest transaction is the same before and after.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from brivl_search.errors import IndexBusyError
from brivl_search.index.store import Environment

_PATIENCE_S = 10.0
_copies: dict[tuple[int, int, int], tuple[tuple[int, ...], Environment]] = {}  # (pid, device, inode) → stamp, copy


def copied(path: Path) -> Environment:
    """An environment on a copy of a catalog's newest transaction. The copy has no name, and goes with its last user.

    Raises:
        IndexBusyError: it is written to without a pause.
        OSError: there is no room for the copy.
        lmdb.Error: the file is no LMDB environment.
    """
    status = path.stat()
    place = (os.getpid(), status.st_dev, status.st_ino)
    source = Environment(path)
    try:
        stamp = _stamp(source, status)
        if place in _copies and _copies[place][0] == stamp:
            return _copies[place][1].share()
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            before = source.env.info()
            size = (before["last_pgno"] + 1) * source.env.stat()["psize"]
            handle, name = tempfile.mkstemp(prefix="brivl-search-catalog-")
            try:
                with os.fdopen(handle, "wb") as out, path.open("rb") as file:
                    _copy(file.fileno(), out.fileno(), size)
                after = source.env.info()
                if after["last_txnid"] == before["last_txnid"]:
                    copy = Environment(Path(name))
                    _copies.clear()
                    _copies[place] = (_stamp(source, path.stat()), copy)
                    return copy.share()
            finally:
                os.unlink(name)
            if time.monotonic() > deadline:
                raise IndexBusyError(f"{path} is written to all the time and cannot be locked from here: try again")
    finally:
        source.close()


def _stamp(source: Environment, status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, source.env.info()["last_txnid"]


def _copy(source: int, target: int, size: int) -> None:
    at = 0
    while at < size and (block := os.pread(source, min(1 << 20, size - at), at)):
        os.write(target, block)
        at += len(block)
