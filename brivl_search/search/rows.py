"""Rows of the index that answer a query, before anything is read of their records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import SearchResult
from brivl_search.metrics.cosine import bounded

RowId = tuple[int, int]  # position of the shard, row in it
Search = Callable[[NDArray[np.float32], int], SearchResult]  # (queries, k); with the query's own filter and tuning
Strength = NDArray[np.float32] | None  # of the correction for hubs, a number a query; None: scores are cosines


@dataclass
class ScoredRow:
    """A row and its cosine with the query.

    Attributes:
        row: which.
        score: cosine, at most 1.
        alike: rows that were folded into this one, each with its score, best first.
    """

    row: RowId
    score: float
    alike: list[tuple[RowId, float]] = field(default_factory=list)


def scored(found: SearchResult, query: int) -> list[tuple[RowId, float]]:
    """The rows found for one of the queries, best first, with their cosines; without the padding behind the last."""
    columns = (found.shards[query].tolist(), found.rows[query].tolist(), bounded(found.cosines[query]).tolist())
    return [((shard, row), score) for shard, row, score in zip(*columns, strict=True) if row >= 0]
