"""Is a shard file still the one that was sealed? Asked at every opening, so it must cost next to nothing.

A file whose size and time of change are the catalog's is believed. Any other (a copied index, a file somebody wrote
to) is hashed once, and the result is remembered in DIR/.checked.json under its new time. Damage that changes no time
(a failing disk) is met by the checksums of the rows that are returned, and by `verify`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from brivl_search.index.types import ShardInfo


def _remembered(directory: Path) -> dict[str, Any]:
    try:
        known = json.loads((directory / ".checked.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def is_sound(directory: Path, info: ShardInfo, *, anew: bool = False) -> bool:
    """Whether the file of `info` has the content the catalog says; `anew`: hash it in any case. Raises OSError."""
    path = directory / "shards" / info.name
    mtime_ns = path.stat().st_mtime_ns
    if mtime_ns == info.mtime_ns and not anew:
        return True
    stamp = [mtime_ns, info.file_sha256]
    if _remembered(directory).get(info.name) == stamp and not anew:
        return True
    with path.open("rb") as file:
        sound = hashlib.file_digest(file, "sha256").hexdigest() == info.file_sha256
    if sound and not anew:
        with contextlib.suppress(OSError):  # a read-only index is hashed again the next time
            temporary = directory / f".checked.json.{os.getpid()}"
            temporary.write_text(json.dumps({**_remembered(directory), info.name: stamp}))
            temporary.replace(directory / ".checked.json")
    return sound


def unsound(directory: Path, shards: Iterable[ShardInfo]) -> list[ShardInfo]:
    """The shards that are missing, cannot be read or are not what was sealed; every file is hashed."""
    found = []
    for info in shards:
        try:
            if is_sound(directory, info, anew=True):
                continue
        except OSError:
            pass
        found.append(info)
    return found
