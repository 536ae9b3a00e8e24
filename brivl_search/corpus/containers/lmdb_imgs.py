"""LMDB folders as Chinese-CLIP writes them: image id -> base64, or number -> pickled pair. Opened once, only read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from brivl_search.corpus.containers.place import Place
from brivl_search.display import printable
from brivl_search.errors import CorpusError, ImageError

COUNT_KEYS = (b"num_images", b"num_samples")

_lock = threading.Lock()
_open: dict[str, tuple[tuple[int, int], Any]] = {}  # py-lmdb allows one environment of each file in a process


def is_lmdb(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "data.mdb"))


def mtime_ns(folder: str) -> int:
    """Time of the last change. Raises: OSError."""
    return os.stat(os.path.join(folder, "data.mdb")).st_mtime_ns


def _environment(folder: str) -> Any:
    """The environment of a folder, opened anew when its file is another. Call with the lock held."""
    import lmdb

    folder = os.path.realpath(folder)
    file = os.path.join(folder, "data.mdb")
    status = os.stat(file)
    identity = (status.st_ino, status.st_mtime_ns)
    if folder in _open:
        if _open[folder][0] == identity:
            return _open[folder][1]
        _open.pop(folder)[1].close()
    with open(file, "rb"):  # so that missing rights are told as such
        pass
    try:
        environment = lmdb.open(folder, readonly=True, lock=False, readahead=False, meminit=False, create=False)
    except lmdb.Error as error:
        raise CorpusError(f"{printable(folder)} is not an LMDB that can be read ({error})") from error
    _open[folder] = (identity, environment)
    return environment


def items(folder: str, *, whole: int, batch: int = 1000) -> Iterator[tuple[bytes, bytes | int]]:
    """(key, value) of every entry but the count; of values longer than `whole` bytes their length.

    Raises:
        CorpusError: it is no LMDB, or damaged.
        OSError: it cannot be read.
    """
    import lmdb

    after = b""
    while True:
        part: list[tuple[bytes, bytes | int]] = []
        try:
            with _lock, _environment(folder).begin(buffers=True) as txn, txn.cursor() as cursor:
                more = cursor.set_range(after) if after else cursor.first()
                while more and len(part) < batch:
                    key, value = bytes(cursor.key()), cursor.value()
                    if key != after:
                        part.append((key, len(value) if len(value) > whole else bytes(value)))
                    more = cursor.next()
        except lmdb.Error as error:
            raise CorpusError(f"{printable(folder)} is damaged ({error})") from error
        if not part:
            return
        after = part[-1][0]
        yield from (pair for pair in part if pair[0] not in COUNT_KEYS)


def locate(folder: str, member: str) -> Place:
    """The place of the image with this id. Raises: ImageError "file vanished"; OSError."""
    key = member.encode("utf-8", "surrogateescape")
    place = Place(folder, "lmdb", key=key, mtime_ns=mtime_ns(folder))
    read(place, 1 << 62)
    return place


def read(place: Place, limit: int) -> bytes:
    """The base64 text of an image. Raises: ImageError; OSError."""
    import lmdb

    try:
        with _lock:
            if place.mtime_ns and mtime_ns(place.container) != place.mtime_ns:
                raise ImageError("file changed", "while it was being indexed")
            with _environment(place.container).begin(buffers=True) as txn:
                value = txn.get(place.key) if 0 < len(place.key) <= 511 else None
                if value is None:
                    raise ImageError("file vanished", "the LMDB has no image with this id")
                if len(value) > limit:
                    raise ImageError("too large", f"{len(value)} bytes, the limit is {limit}")
                return bytes(value)
    except (lmdb.Error, CorpusError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("read error", str(error)) from error
