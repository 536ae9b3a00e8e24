"""Members of an uncompressed tar with the offset of their bytes, by walking its headers with seeks."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from brivl_search.display import printable
from brivl_search.errors import CorpusError

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file in a tar; its content is `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Damage:
    """The tar cannot be followed beyond this; members after it are out of reach, not gone."""

    offset: int
    detail: str


def is_tar(path: str) -> bool:
    """Whether a file begins with a tar header (or is empty of members); compressed ones are not."""
    with open(path, "rb") as handle:
        block = handle.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return True
    except tarfile.HeaderError:
        return False
    return True


def compression(path: str) -> str:
    """Name of the compression of a file, "" if there is none known."""
    with open(path, "rb") as handle:
        head = handle.read(8)
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")


def members(path: str) -> Iterator[Member | Damage]:
    """Regular files in the order they lie in, then `Damage` if the tar breaks off.

    Raises:
        CorpusError: it is no tar, or compressed (which has no random access).
        OSError: it cannot be read.
    """
    if kind := compression(path):
        raise CorpusError(f"{printable(path)} is compressed ({kind}): decompress it, images are read at their offsets")
    try:
        opened = tarfile.open(path, "r:", errorlevel=1)  # noqa: SIM115  (closed below; ReadError is ours to name)
    except tarfile.ReadError as error:
        raise CorpusError(f"{printable(path)} is not a tar file ({error})") from error
    with opened as archive:
        handle: Any = archive.fileobj
        size = handle.seek(0, 2)
        handle.seek(archive.offset)
        while True:
            try:
                member = archive.next()
            except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
                yield Damage(archive.offset, str(error))
                return
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            if member is None:
                break
            if member.offset_data + member.size > size:
                yield Damage(member.offset_data, f"{printable(member.name)} is cut off")
                return
            if member.isreg() and not member.issparse() and "\0" not in member.name:
                yield Member(member.name, member.offset_data, member.size)
        handle.seek(archive.offset)
        end = handle.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        yield Damage(archive.offset, "no end-of-archive block: the file is cut off or damaged here")
