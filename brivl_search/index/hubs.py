"""The correction for hubs on disk: one number a row of a shard, in the catalog beside the rows that were removed.

A number depends on the row's vector and on the references alone, so it goes wherever the row goes. Where it is missing,
it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import catalog
from brivl_search.index.catalog import Part
from brivl_search.index.shard import Shard
from brivl_search.index.types import Modality, ShardInfo
from brivl_search.metrics.hub_correction import HubCorrection

Lowered = NDArray[np.float32]


def read_correction(directory: Path, modality: Modality) -> HubCorrection | None:
    """What the published index corrects a modality with; None: nothing.

    Raises:
        IndexMissingError: there is no index.
        IndexIncompatibleError: it is damaged.
    """
    with catalog.reading(directory) as (txn, meta):
        if meta.parts[modality].correction is None:
            return None
        return catalog.get_correction(txn, modality, catalog.catalog_path(directory))


def lowered_of(txn: Any, directory: Path, modality: Modality, part: Part) -> Callable[[Shard], Lowered | None]:
    """What gives the numbers of an open shard, float32 (rows,); None where nothing is corrected.

    Args:
        txn: of the catalog; it may be over when a shard is asked for.
        directory: the index.
        modality: of the shards.
        part: what the catalog says of it.

    Raises:
        IndexIncompatibleError: numbers are missing, and cannot be computed because the correction is damaged.
    """
    if part.correction is None:
        return lambda shard: None
    known = {info.seq: catalog.get_lowered(txn, info.name, info.rows) for info in part.shards}
    correction: HubCorrection | None = None
    if any(one is None for one in known.values()):
        correction = catalog.get_correction(txn, modality, catalog.catalog_path(directory))

    def of(shard: Shard) -> Lowered | None:
        found = known[shard.info.seq]
        return found if found is not None or correction is None else correction.of(shard.vectors)

    return of


def sealed_numbers(
    correction: HubCorrection, shards: Sequence[ShardInfo], carried: Lowered, shard: Callable[[int], Shard]
) -> dict[str, Lowered]:
    """The numbers of new shards, by name.

    Args:
        correction: in force.
        shards: in the order in which they were written.
        carried: of their first rows, which came from other shards; they are not computed again.
        shard: opens one by its number.
    """
    found, at = {}, 0
    for info in shards:
        known = carried[at : at + info.rows]
        at += info.rows
        fresh = correction.of(shard(info.seq).vectors[len(known) :])
        found[info.name] = np.concatenate([known, fresh])
    return found


def carried_numbers(
    merged: Sequence[ShardInfo], known: Mapping[int, Lowered | None], live: Callable[[ShardInfo], NDArray[np.bool_]]
) -> Lowered:
    """The numbers of the rows that a merge takes over, in the order in which it writes them; none if some are missing.

    Args:
        merged: the shards that are rewritten.
        known: numbers by the shard's number.
        live: which rows of a shard count.
    """
    taken = [np.zeros(0, np.float32)]
    for info in merged:
        numbers = known.get(info.seq)
        if numbers is None:
            return taken[0]
        taken.append(numbers[live(info)])
    return np.concatenate(taken)
