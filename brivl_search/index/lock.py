"""The writer's lock: one build at a time, released by the kernel however the builder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from brivl_search.errors import IndexBusyError

_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def lock_path(directory: Path) -> Path:
    return directory / ".writer.lock"


class WriterLock:
    """flock on DIR/.writer.lock, held until `release` or the end of the process.

    Raises:
        IndexBusyError: another build holds it; the message names its process.
    """

    def __init__(self, directory: Path) -> None:
        path = lock_path(directory)
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise IndexBusyError(f"another build is writing {directory} (pid {owner})", code="busy") from None
        try:
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()
        except OSError:  # a full disk
            with contextlib.suppress(OSError):
                self._file.close()
            raise
        _held.add(self)

    def release(self) -> None:
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()
        _held.discard(self)

    def forget(self) -> None:
        """In a forked child: close the inherited handle, so that only the parent keeps the lock alive."""
        with contextlib.suppress(OSError):
            os.close(self._file.fileno())


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)


def is_locked(directory: Path) -> bool:
    """Is a build writing this index right now? Never waits; False where the lock cannot be looked at."""
    try:
        with lock_path(directory).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            return False
    except OSError:
        return False
