"""An image inside a container: its place by its path, and its bytes by random access."""

from __future__ import annotations

import base64
import binascii
import functools
import os
import stat
from collections.abc import Mapping

from brivl_search.corpus.containers.place import Place, split
from brivl_search.errors import ImageError

_STANDARD = bytes.maketrans(b"-_", b"+/")


def locate(path: str) -> Place | None:
    """The place of an image by its path; None if the path does not name a member of a container.

    A tar or TSV is looked through for that; the last containers are remembered until they change.

    Raises:
        ImageError: "file vanished": there is no such member; "read error" and the like: the container cannot be read.
    """
    found = split(path)
    if found is None:
        return None
    container, member = os.path.abspath(found[0]), found[1]
    try:
        if os.path.isdir(container):
            from brivl_search.corpus.containers import lmdb_imgs

            return lmdb_imgs.locate(container, member)
        status = os.stat(container)
        place = _places(container, status.st_size, status.st_mtime_ns).get(member)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("file vanished", error.strerror or "") from error
    except PermissionError as error:
        raise ImageError("permission denied", error.strerror or "") from error
    except OSError as error:
        raise ImageError("read error", error.strerror or str(error)) from error
    if place is None:
        raise ImageError("file vanished", f"{os.path.basename(container)} has no member of this name")
    return place


@functools.lru_cache(maxsize=2)
def _places(container: str, size: int, mtime_ns: int) -> Mapping[str, Place]:
    """Member -> place of one container; a name that comes again wins, as when a tar is unpacked."""
    from brivl_search.corpus.containers import base64_tsv, tar

    if tar.is_tar(container):
        members = (member for member in tar.members(container) if isinstance(member, tar.Member))
        return {one.name: Place(container, "tar", one.offset, one.size, mtime_ns=mtime_ns) for one in members}
    rows = (row for row in base64_tsv.rows(container) if isinstance(row, base64_tsv.Row))
    return {row.id: Place(container, "tsv", row.offset, row.size, mtime_ns=mtime_ns) for row in rows}


def read(place: Place, max_bytes: int) -> bytes:
    """The bytes of the image at a place.

    Raises:
        ImageError: "bad base64", "truncated", "too large", "file changed" (since it was looked through), "file
            vanished", "permission denied", "not a regular file", "read error", "out of memory".
    """
    limit = max_bytes if place.kind == "tar" else max_bytes // 3 * 4
    if place.size > limit:
        raise ImageError("too large", f"{place.size} bytes, the limit is {limit}")
    try:
        if place.kind == "lmdb":
            from brivl_search.corpus.containers import lmdb_imgs

            return decode_base64(lmdb_imgs.read(place, limit))
        data = _read_slice(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("file vanished", error.strerror or "") from error
    except PermissionError as error:
        raise ImageError("permission denied", error.strerror or "") from error
    except MemoryError as error:
        raise ImageError("out of memory", "reading the file") from error
    except (OSError, ValueError) as error:
        raise ImageError("read error", getattr(error, "strerror", None) or str(error)) from error
    return data if place.kind == "tar" else decode_base64(data)


def _read_slice(place: Place) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(place.container, flags), "rb", buffering=0) as handle:
        status = os.fstat(handle.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if place.mtime_ns and status.st_mtime_ns != place.mtime_ns:
            raise ImageError("file changed", "while it was being indexed")
        handle.seek(place.offset)
        data = bytearray()
        while len(data) < place.size and (more := handle.read(place.size - len(data))):
            data += more
    if len(data) < place.size:
        raise ImageError("truncated", f"the container ends after {len(data)} of {place.size} bytes")
    return bytes(data)


def decode_base64(text: bytes) -> bytes:
    """Base64 of either alphabet (`+/` or `-_`), padding optional; anything else in it is an error.

    Raises:
        ImageError: "bad base64".
    """
    text = text.strip().translate(_STANDARD).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("bad base64", str(error)) from error
