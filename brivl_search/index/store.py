"""LMDB handled with care: one environment per file and process, maps that grow, scans that hold no transaction."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from brivl_search.index.whole import is_cut

T = TypeVar("T")

_READER_TABLE = 64 << 10  # bytes: 512 readers of 64 bytes and a head, and some
INITIAL_MAP = 4 << 30  # address space, not disk: the file grows as it is filled


@dataclass
class _Open:
    env: Any
    users: int
    writable: bool
    again: Callable[[], Any] | None = None  # opens it once more


_open: dict[tuple[int, int, int], _Open] = {}  # (pid, device, inode) -> environment
_lock = threading.RLock()


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return (os.getpid(), status.st_dev, status.st_ino)


class Environment:
    """A share in the process's only environment on one LMDB file; `close` gives the share back.

    Args:
        path: the file (subdir=False).
        writable: open for writing, creating the file.
        lock: take part in LMDB's reader table; shards and staging do without.
        durable: every write transaction reaches the disk before it returns; else only `env.sync(True)` does that.

    Raises:
        lmdb.Error: it is no LMDB file, or was cut short.
        OSError: it cannot be opened.

    A share that is forgotten gives itself back, so whatever points into the map keeps the share alive, not more.
    """

    def __init__(self, path: Path, *, writable: bool = False, lock: bool = False, durable: bool = True) -> None:
        self._entry: _Open | None = None
        self.path = path
        deadline = time.monotonic() + 10
        while True:
            with _lock:
                if path.exists() and (entry := _open.get(_identity(path))) is not None:
                    if entry.writable or not writable:
                        entry.users += 1
                        self._identity = _identity(path)
                        break
                else:
                    again = partial(self._fresh, path, writable, lock, durable)
                    env = again()
                    self._identity = _identity(path)
                    _open[self._identity] = entry = _Open(env, 1, writable, again)
                    break
            if time.monotonic() > deadline:  # a reader in another thread holds it for milliseconds, never for long
                raise TimeoutError(f"{path} stays open for reading in this process")
            time.sleep(0.005)
        self._entry = entry

    @staticmethod
    def _fresh(path: Path, writable: bool, lock: bool, durable: bool) -> Any:
        if writable and not path.exists():
            _create(path)
        elif is_cut(path):
            raise lmdb.CorruptedError("it was cut short")
        if lock:
            _reserve(path.with_name(path.name + "-lock"))
        if writable:
            return lmdb.open(
                os.fsencode(path), subdir=False, map_size=INITIAL_MAP, lock=lock, sync=durable, max_readers=512
            )
        return lmdb.open(os.fsencode(path), subdir=False, readonly=True, lock=lock, readahead=False, max_readers=512)

    @property
    def env(self) -> Any:
        if self._entry is None:
            raise ValueError(f"{self.path} is closed")
        return self._entry.env

    def renew(self) -> None:
        """Give back the memory that the map and LMDB's free pages take, by opening the file anew.

        Nothing happens while others share the environment. No transaction of it may be open.
        """
        with _lock:
            entry = self._entry
            if entry is None or entry.users > 1 or not entry.again:
                return
            entry.env.close()
            try:
                entry.env = entry.again()
            except BaseException:
                del _open[self._identity]
                self._entry = None
                raise

    def share(self) -> Environment:
        """Another share in the same environment, whether its file still has a name or not."""
        with _lock:
            if self._entry is None:
                raise ValueError(f"{self.path} is closed")
            other = object.__new__(Environment)
            other.path, other._identity, other._entry = self.path, self._identity, self._entry
            self._entry.users += 1
            return other

    def close(self) -> None:
        with _lock:
            entry, self._entry = self._entry, None
            if entry is None or self._identity[0] != os.getpid():
                return  # closed before, or inherited through a fork: it is the parent's
            entry.users -= 1
            if entry.users == 0:
                del _open[self._identity]
                entry.env.close()

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def read(self, *, buffers: bool = False) -> Iterator[Any]:
        """A read transaction; a map grown by another process is followed."""
        try:
            txn = self.env.begin(buffers=buffers)
        except lmdb.MapResizedError:
            self.env.set_mapsize(0)
            txn = self.env.begin(buffers=buffers)
        try:
            yield txn
        finally:
            txn.abort()

    def get(self, key: bytes) -> bytes | None:
        with self.read() as txn:
            value: bytes | None = txn.get(key)
            return value

    def write(self, change: Callable[[Any], T]) -> T:
        """Run `change(txn)` in one write transaction, again from its beginning whenever the map had to grow."""
        while True:
            try:
                with self.env.begin(write=True) as txn:
                    return change(txn)
            except lmdb.MapFullError:
                self.env.set_mapsize(2 * self.env.info()["map_size"])
            except lmdb.MapResizedError:
                self.env.set_mapsize(0)
            except lmdb.Error as error:
                error.filename = os.fspath(self.path)  # type: ignore[attr-defined]  # which disk is full?
                raise

    def scan(self, prefix: bytes, batch: int = 1024) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs below `prefix`, in key order, holding no transaction between batches."""
        start = prefix
        while True:
            with self.read() as txn:
                page = list(_page(txn, start, prefix, batch))
            yield from page
            if len(page) < batch:
                return
            start = page[-1][0] + b"\0"


def _create(path: Path) -> None:
    """An empty LMDB file, whole at once: LMDB can be killed, or meet a full disk, half-way through its first pages."""
    temporary = path.with_name(f".new-{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        lmdb.open(os.fsencode(temporary), subdir=False, map_size=1 << 20, lock=False).close()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Disk for LMDB's reader table: it is written through a map, which on a full disk is a SIGBUS. Raises OSError."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return  # LMDB will say it better
    try:
        os.posix_fallocate(handle, 0, max(os.fstat(handle).st_size, _READER_TABLE))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


def _page(txn: Any, start: bytes, prefix: bytes, batch: int) -> Iterator[tuple[bytes, bytes]]:
    with txn.cursor() as cursor:
        if not cursor.set_range(start):
            return
        for count, (key, value) in enumerate(cursor):
            if count == batch or not key.startswith(prefix):
                return
            yield key, value


def scan_txn(txn: Any, prefix: bytes) -> Iterator[tuple[Any, Any]]:
    """All (key, value) pairs below `prefix` inside a transaction (bytes, or buffers if it is a buffers one)."""
    with txn.cursor() as cursor:
        if not cursor.set_range(prefix):
            return
        for key, value in cursor:
            if bytes(key[: len(prefix)]) != prefix:
                return
            yield key, value


def fsync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable."""
    if os.name == "nt":
        return  # Windows opens no folder for this; NTFS keeps its own journal
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
