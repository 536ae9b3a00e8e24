"""Uploaded pictures on disk: there before the catalog names them, and gone again where it never does.

A picture is written under a temporary name, synced, and renamed; then its folder is synced. Beside it lies an empty
mark until the index has taken it in or refused it. What a killed server left behind (a temporary file; a marked picture
that the index does not hold) is swept when the next one starts. A picture without a mark is never swept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from brivl_search.index.store import fsync_directory
from brivl_search.server.answers.kinds import ending

_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.\w{1,8}\.[0-9a-f]{8}\.tmp")
_MARK = re.compile(r"\.([0-9a-f]{64}\.\w{1,8})\.mark")


def kept_path(folder: Path, sha256: str | None, name: str) -> str:
    """Where an upload of this content is kept; of `name` the ending counts."""
    known = sha256 or ""
    return os.path.join(os.path.abspath(folder), known[:2], known + os.path.splitext("x" + name)[1])


@contextlib.contextmanager
def kept(folder: Path, uploads: Iterable[bytes], holds: Callable[[str], bool]) -> Iterator[list[str]]:
    """The uploads as files, durable, under names made of their content: their absolute paths.

    At the end the new ones that the index does not hold are deleted again.

    Args:
        folder: of uploads.
        uploads: contents of files.
        holds: whether the index holds an image of this path.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    paths: list[str] = []
    new: list[str] = []
    try:
        for data in uploads:
            path = kept_path(folder, hashlib.sha256(data).hexdigest(), ending(data))
            paths.append(path)
            if not os.path.exists(path):
                new.append(path)
                _keep(path, data)
        yield paths
    finally:
        for path in new:
            settle(path, holds(path))


def _keep(path: str, data: bytes) -> None:
    parent, name = os.path.split(path)
    _make(parent)
    mark(path)
    temporary = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _make(folder: str) -> None:
    """The folder, durable in the one above it."""
    if not os.path.isdir(folder):
        _make(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        _sync(os.path.dirname(folder))


def _sync(folder: str) -> None:
    """Renames in a folder are on disk afterwards, where the system knows how."""
    try:
        fsync_directory(Path(folder))
    except (PermissionError, IsADirectoryError):
        if os.name != "nt":  # Windows opens no folders
            raise


def _mark_of(path: str) -> str:
    parent, name = os.path.split(path)
    return os.path.join(parent, f".{name}.mark")


def mark(path: str) -> None:
    """Says that nobody knows yet whether the index holds the picture."""
    with open(_mark_of(path), "wb"):
        pass


def settle(path: str, held: bool) -> None:
    """Keeps a marked picture or deletes it, and takes the mark away."""
    if not held:
        Path(path).unlink(missing_ok=True)
    Path(_mark_of(path)).unlink(missing_ok=True)


def sweep(folder: Path, holds: Callable[[str], bool]) -> int:
    """Clears up what a killed server left in the folder of uploads; tells how many pictures were deleted.

    Args:
        folder: of uploads; it need not exist.
        holds: as of `kept`.
    """
    deleted = 0
    for parent in sorted(Path(folder).absolute().glob("[0-9a-f][0-9a-f]")):
        for name in os.listdir(parent) if parent.is_dir() else ():
            if _TEMPORARY.fullmatch(name):
                (parent / name).unlink(missing_ok=True)
            elif found := _MARK.fullmatch(name):
                path = os.path.join(parent, found[1])
                held = holds(path)
                deleted += not held and os.path.exists(path)
                settle(path, held)
    return deleted
