"""Where the bytes of an image inside a container lie, and the path CONTAINER::MEMBER that names it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

SEPARATOR = "::"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of one image lie.

    Attributes:
        container: absolute path of the tar, the TSV or the LMDB folder.
        kind: how to read it.
        offset: of the first byte (tar, tsv).
        size: bytes there: of the image, or of its base64 text.
        key: of the value (lmdb).
        mtime_ns: of the container when it was looked through; a place in a changed one is not read. 0: not compared.
    """

    container: str
    kind: Literal["tar", "tsv", "lmdb"]
    offset: int = 0
    size: int = 0
    key: bytes = b""
    mtime_ns: int = 0


def split(path: str) -> tuple[str, str] | None:
    """(container, member) of a path like /data/x.tar::1.jpg; None if it is not one or a plain file has this name."""
    if SEPARATOR not in path or os.path.lexists(path):
        return None
    at = path.find(SEPARATOR)
    while at >= 0:
        container, member = path[:at], path[at + len(SEPARATOR) :]
        if member and (os.path.isfile(container) or os.path.isfile(os.path.join(container, "data.mdb"))):
            return container, member
        at = path.find(SEPARATOR, at + 1)
    return None


def below(folder: str) -> tuple[str, str]:
    """What the paths of images below a folder, or inside a container such as a tar, begin with."""
    return os.path.join(folder, ""), folder + SEPARATOR
