"""Near-identical results become one: every row within a cosine of a better one is folded into it, and none is lost.

Cosines alone take pages of different text for one: the encoder sees text, not which. So images must look alike too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality
from brivl_search.metrics.cosine import bounded
from brivl_search.search.looks import Looks, allowed_bits
from brivl_search.search.rows import RowId, ScoredRow, Search, scored

ALIKE = 0.97  # brivl-mini, Flickr8k: 91 % of JPEGs at quality 40, a third of 10 % crops; 1.1 % of photos meet another
_SLACK = 1e-3  # rows are float16: equal pictures score a little below 1
_FIRST = 32


def group(
    reader: IndexReader, modality: Modality, query: NDArray[np.float32], k: int, alike: float, search: Search
) -> list[ScoredRow]:
    """The k best groups, best first: greedily, each led by the best row that is in none yet.

    Rows with one content have one vector and one look, so copies are alike at any threshold.

    Args:
        reader: of the index.
        modality: what is searched.
        query: float32 (dim,), unit length.
        k: groups.
        alike: cosine with the leader from which on a row belongs to its group, if the two look alike.
        search: how rows are found, for the query and for a leader's neighbours.
    """
    groups: list[ScoredRow] = []
    taken: set[RowId] = set()
    depth = max(2 * k, _FIRST)
    bar = min(alike, 1.0) - _SLACK
    looks = Looks(reader) if modality == "image" else None
    bits = allowed_bits(alike, ALIKE)
    while True:
        found = scored(search(query[None], depth), 0)
        for row, score in found:
            if len(groups) == k:
                return groups
            if row in taken:
                continue
            leader = ScoredRow(row, score)
            taken.add(row)
            for other in _neighbours(reader.vector(modality, *row).astype(np.float32), bar, search):
                if other not in taken and not (looks and looks.apart(row, other, bits)):
                    taken.add(other)
                    score = bounded(float(reader.vector(modality, *other).astype(np.float32) @ query))
                    leader.alike.append((other, score))
            leader.alike.sort(key=lambda one: (-one[1], one[0]))
            groups.append(leader)
        if len(found) < depth:
            return groups
        groups, taken, depth = [], set(), 4 * depth


def _neighbours(vector: NDArray[np.float32], bar: float, search: Search) -> list[RowId]:
    depth = _FIRST
    while True:
        found = scored(search(vector[None], depth), 0)
        near = [row for row, score in found if score >= bar]
        if len(near) < depth:
            return near
        depth *= 4
