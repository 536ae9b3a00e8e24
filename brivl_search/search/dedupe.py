"""Near-identical results become one: every row within a cosine of a better one is folded into it, and none is lost.

Cosines alone take pages of different text for one: the encoder sees text, not which. So images must look alike too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality
from brivl_search.metrics.cosine import bounded
from brivl_search.search.looks import Looks, allowed_bits
from brivl_search.search.rows import RowId, ScoredRow, Search, scored

ALIKE = 0.97  # brivl-mini, Flickr8k: 91 % of JPEGs at quality 40, a third of 10 % crops; 1.1 % of photos meet another
SLACK = 1e-3  # rows are float16: equal pictures score a little below 1
_FIRST = 32
_DEEP = 10_000  # rows that are looked at where there is a limit on what is listed


def group(
    reader: IndexReader,
    modality: Modality,
    query: NDArray[np.float32],
    k: int,
    alike: float,
    search: Search,
    most: int | None = None,
    hits: Search | None = None,
) -> list[ScoredRow]:
    """The k best groups, best first: greedily, each led by the best row that is in none yet.

    Rows with one content have one vector and one look, so copies are alike at any threshold.

    Args:
        reader: of the index.
        modality: what is searched.
        query: float32 (dim,), unit length.
        k: groups.
        alike: cosine with the leader from which on a row belongs to its group, if the two look alike.
        search: how rows are found, for a leader's neighbours and, without `hits`, for the query.
        most: rows that are kept with a leader. Further ones are folded into it and forgotten. Then no more than the
            10,000 rows next to the query are looked at, or 2 k: there may be fewer groups. None: no limit.
        hits: how the query's rows are found, where that is another search than that for neighbours.
    """
    hits = hits or search
    deepest = None if most is None else max(2 * k, _DEEP)
    depth = max(2 * k, _FIRST)
    bar = min(alike, 1.0) - SLACK
    looks = Looks(reader) if modality == "image" else None
    bits = allowed_bits(alike, ALIKE)

    def apart(one: RowId, other: RowId) -> bool:
        return looks is not None and looks.apart(one, other, bits)

    while True:
        found = scored(hits(query[None], depth), 0)
        groups = _fold(reader, modality, query, k, bar, search, found, most, apart)
        if len(groups) == k or len(found) < depth or depth == deepest:
            return groups
        depth = 4 * depth if deepest is None else min(4 * depth, deepest)


def _fold(
    reader: IndexReader,
    modality: Modality,
    query: NDArray[np.float32],
    k: int,
    bar: float,
    search: Search,
    found: Sequence[tuple[RowId, float]],
    most: int | None,
    apart: Callable[[RowId, RowId], bool],
) -> list[ScoredRow]:
    """The first k groups of the rows found."""
    groups: list[ScoredRow] = []
    taken: set[RowId] = set()
    crowded = np.zeros((0, len(query)), np.float32)  # leaders that have more neighbours than are kept
    crowds: list[RowId] = []
    for row, score in found:
        if len(groups) == k:
            break
        if row in taken:
            continue
        vector = reader.vector(modality, *row).astype(np.float32)
        taken.add(row)
        if any(not apart(crowds[int(at)], row) for at in np.flatnonzero(crowded @ vector >= bar)):
            continue
        leader = ScoredRow(row, score)
        near = _neighbours(vector, bar, search, most)
        for other in near:
            if other not in taken and (most is None or len(leader.alike) < most) and not apart(row, other):
                taken.add(other)
                score = bounded(float(reader.vector(modality, *other).astype(np.float32) @ query))
                leader.alike.append((other, score))
        if most is not None and len(near) > most + 1:
            crowded = np.vstack([crowded, vector])
            crowds.append(row)
        leader.alike.sort(key=lambda one: -one[1])  # of one cosine, in the order of the neighbours
        groups.append(leader)
    return groups


def _neighbours(vector: NDArray[np.float32], bar: float, search: Search, most: int | None) -> list[RowId]:
    """Rows near a leader, nearest first, itself among them; of more than `most` others, `most` + 2 rows."""
    deepest = None if most is None else most + 2
    depth = _FIRST if deepest is None else min(_FIRST, deepest)
    while True:
        found = scored(search(vector[None], depth), 0)
        near = [row for row, score in found if score >= bar]
        if len(near) < depth or depth == deepest:
            return near
        depth = 4 * depth if deepest is None else min(4 * depth, deepest)
