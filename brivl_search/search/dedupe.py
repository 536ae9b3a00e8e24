"""Near-identical results become one: every row within a cosine of a better one is folded into it, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality, SearchResult

ALIKE = 0.97  # brivl-mini, Flickr8k: 91 % of JPEGs at quality 40, a third of 10 % crops; 1.1 % of photos meet another
_SLACK = 1e-3  # rows are float16: equal pictures score a little below 1
_FIRST = 32

Place = tuple[int, int]  # shard, row
Search = Callable[[NDArray[np.float32], int], SearchResult]  # (queries, k); with the query's own filter


@dataclass
class Group:
    """A row, and those that are alike and score lower; each with its score."""

    place: Place
    score: float
    alike: list[tuple[Place, float]] = field(default_factory=list)


def group(
    reader: IndexReader, modality: Modality, query: NDArray[np.float32], k: int, alike: float, search: Search
) -> list[Group]:
    """The k best groups, best first: greedily, each led by the best row that is in none yet.

    Rows with one content have one vector, so copies are alike at any threshold.

    Args:
        reader: of the index.
        modality: what is searched.
        query: float32 (dim,), unit length.
        k: groups.
        alike: cosine with the leader from which on a row belongs to its group.
        search: how rows are found, for the query and for a leader's neighbours.
    """
    groups: list[Group] = []
    taken: set[Place] = set()
    depth = max(2 * k, _FIRST)
    bar = min(alike, 1.0) - _SLACK
    while True:
        found = _rows(search(query[None], depth))
        for place, score in found:
            if len(groups) == k:
                return groups
            if place in taken:
                continue
            leader = Group(place, score)
            taken.add(place)
            for other in _neighbours(reader.vector(modality, *place).astype(np.float32), bar, search):
                if other not in taken:
                    taken.add(other)
                    leader.alike.append((other, float(reader.vector(modality, *other).astype(np.float32) @ query)))
            leader.alike.sort(key=lambda one: (-one[1], one[0]))
            groups.append(leader)
        if len(found) < depth:
            return groups
        groups, taken, depth = [], set(), 4 * depth


def _neighbours(vector: NDArray[np.float32], bar: float, search: Search) -> list[Place]:
    depth = _FIRST
    while True:
        found = _rows(search(vector[None], depth))
        near = [place for place, score in found if score >= bar]
        if len(near) < depth:
            return near
        depth *= 4


def _rows(found: SearchResult) -> list[tuple[Place, float]]:
    rows = zip(found.shards[0].tolist(), found.rows[0].tolist(), found.scores[0].tolist(), strict=True)
    return [((shard, row), score) for shard, row, score in rows if row >= 0]
