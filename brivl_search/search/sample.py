"""Rows that stand for a collection: what a query scores in general is told by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality

ROWS = 2048  # at most
_RUN = 8  # rows that lie side by side: they are a page of the file, and cost one read


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows of a collection, and how many it has.

    Attributes:
        vectors: float32 (n, dim).
        rows: of the collection; where a filter is used, those that it lets through.
    """

    vectors: NDArray[np.float32]
    rows: int


def vectors_of(reader: IndexReader, modality: Modality) -> NDArray[np.float32]:
    """float32 (n, dim): runs of live rows that lie evenly over all shards; all rows of a small index.

    The same generation always gives the same rows.
    """
    parts = [(vectors, None if live is None else np.flatnonzero(live)) for vectors, live in reader.blocks(modality)]
    counts = [len(vectors) if alive is None else len(alive) for vectors, alive in parts]
    runs = -(-sum(counts) // _RUN)
    chosen = np.unique(np.linspace(0, max(runs - 1, 0), min(runs, ROWS // _RUN)).astype(np.int64)) * _RUN
    places = (chosen[:, None] + np.arange(_RUN)).ravel()  # among the live rows of all shards
    found, first = [np.zeros((0, reader.info.encoder.dim), np.float32)], 0
    for (vectors, alive), count in zip(parts, counts, strict=True):
        inside = places[(places >= first) & (places < first + count)] - first
        first += count
        found.append(vectors[inside if alive is None else alive[inside]].astype(np.float32))
    return np.concatenate(found)
