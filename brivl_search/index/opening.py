"""How a generation is opened: when the catalog changed last, and a shard with the rows that count."""

from __future__ import annotations

import time
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import IndexIncompatibleError
from brivl_search.index import catalog
from brivl_search.index.catalog import Meta
from brivl_search.index.search import Searched
from brivl_search.index.shard import Shard
from brivl_search.index.types import ShardInfo

_CLOCK_NS = 2 * 10**9  # the coarsest clock among file systems (FAT)


def stamp(directory: Path) -> tuple[int, ...]:
    """What every commit changes of the catalog's file; () if it changed so lately that the clock may not tell."""
    try:
        status = catalog.catalog_path(directory).stat()
    except OSError:
        return ()
    if time.time_ns() - status.st_mtime_ns < _CLOCK_NS:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def open_shard(directory: Path, info: ShardInfo, removed: NDArray[np.uint32], meta: Meta) -> Searched:
    """A shard as it is searched; `removed` rows do not count. Raises FileNotFoundError, IndexIncompatibleError."""
    try:
        shard = Shard(directory, info, meta.encoder.dim)
    except lmdb.Error as error:
        raise IndexIncompatibleError(f"{directory / 'shards' / info.name} is damaged ({error})") from error
    if not len(removed):
        return Searched(shard, None, info.rows)
    live = np.ones(info.rows, dtype=bool)
    live[removed] = False
    return Searched(shard, live, int(np.count_nonzero(live)))
