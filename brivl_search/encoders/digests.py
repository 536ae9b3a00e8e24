"""SHA-256 of files. Those of large files are cached, because hashing runs at about half a gigabyte a second.

A file counts as unchanged while its path, size, modification time and inode are the same; the index judges images by
the same rule. The cache is one small file in the user's cache folder. Without it, files are hashed each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders import places
from brivl_search.errors import EncoderError

LARGE = 64 << 20
_KEPT = 256  # files remembered


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, hexadecimal.

    Raises:
        EncoderError: the file cannot be read.
    """
    try:
        status = path.stat()
        if status.st_size < LARGE:
            return _hash(path)
        key = "|".join([str(path.resolve()), *map(str, (status.st_size, status.st_mtime_ns, status.st_ino))])
        known = _read()
        if key not in known:
            known[key] = _hash(path)
            _write(dict(list(known.items())[-_KEPT:]))
        return known[key]
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror}") from None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _memory() -> Path:
    return places.cache_folder() / "sha256.json"


def _read() -> dict[str, str]:
    try:
        values = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _write(values: dict[str, str]) -> None:
    """A reader sees the old file or the new one."""
    with contextlib.suppress(OSError):
        path = _memory()
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as (temporary,):
            temporary.write_text(json.dumps(values), encoding="utf-8")
