"""The writer's lock: one build at a time, released by the system however the builder ends.

POSIX has `flock`, Windows `msvcrt.locking`. The lock is our own and no library's, because a second writer is told who
holds it, a reader asks whether it is held, and a forked child must not let go of it.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

from brivl_search.errors import IndexBusyError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()
_BYTE = 1 << 30  # which byte is locked on Windows: far behind the owner's number, so that others can read that


def lock_path(directory: Path) -> Path:
    return directory / ".writer.lock"


class WriterLock:
    """A lock on DIR/.writer.lock, held until `release` or the end of the process.

    Raises:
        IndexBusyError: another build holds it; the message names its process.
    """

    def __init__(self, directory: Path) -> None:
        self._handle: int | None = None
        handle = os.open(lock_path(directory), os.O_RDWR | os.O_CREAT, 0o664)
        try:
            if not _take(handle):
                owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
                raise IndexBusyError(f"another build is writing {directory} (pid {owner})", code="busy")
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        _held.add(self)

    def release(self) -> None:
        """Lets go; a second time, or in a forked child, it does nothing."""
        handle, self._handle = self._handle, None
        _held.discard(self)
        if handle is not None:
            try:
                os.ftruncate(handle, 0)
                _let_go(handle)
            finally:
                os.close(handle)

    def forget(self) -> None:
        """In a forked child: close the inherited handle, so that only the parent keeps the lock alive."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)


def _take(handle: int, *, shared: bool = False) -> bool:
    """Takes the lock without waiting; says whether it was free. Raises OSError where files cannot be locked."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(handle, _BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            os.lseek(handle, 0, os.SEEK_SET)
    except (BlockingIOError, PermissionError):
        os.lseek(handle, 0, os.SEEK_SET)
        return False
    return True


def _let_go(handle: int) -> None:
    if fcntl is None:  # flock ends with the handle
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_all)


def is_locked(directory: Path) -> bool:
    """Is a build writing this index right now? Never waits; False where the lock cannot be looked at."""
    try:
        handle = os.open(lock_path(directory), os.O_RDONLY if fcntl is not None else os.O_RDWR)
    except OSError:
        return False
    try:
        if not _take(handle, shared=True):
            return True
        _let_go(handle)
        return False
    except OSError:
        return False
    finally:
        os.close(handle)
