"""One search of one generation of the index: vectors → scored rows. Whatever chooses or orders rows belongs here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality, SearchResult
from brivl_search.search import dedupe
from brivl_search.search.allowed import Masks
from brivl_search.search.options import SearchOptions
from brivl_search.search.rows import ScoredRow, Strength, scored

_CELLS = 1 << 21  # hits of all queries that are searched together


def nearest(
    reader: IndexReader,
    modality: Modality,
    vectors: NDArray[np.float32],
    options: SearchOptions,
    allow: Masks | None,
    strength: Strength = None,
) -> Iterator[list[ScoredRow]]:
    """The rows nearest to each vector, best first.

    Args:
        reader: of the generation that is searched.
        modality: what is searched.
        vectors: float32 (n, dim), unit length.
        options: how; its filter has become `allow`.
        allow: rows that may be answered with, None: all.
        strength: how strongly each vector's hits are corrected for hubs, float32 (n,), as of `IndexReader.search`.
    """

    rows = max(1, reader.count(modality))

    def search(queries: NDArray[np.float32], k: int, strength: Strength = None) -> SearchResult:
        k = min(k, rows)  # whoever asks for more gets all there are, in arrays of that size
        return reader.search(
            modality,
            queries,
            k,
            exact=options.exact,
            nprobe=options.nprobe,
            rerank=options.rerank,
            allow=allow,
            strength=strength,
        )

    if options.alike is not None:
        for number, vector in enumerate(vectors):
            own = None if strength is None else strength[number : number + 1]
            hits = partial(search, strength=own)  # a leader's neighbours are pictures near a picture: cosines alone
            yield dedupe.group(reader, modality, vector, options.k, options.alike, search, options.most_alike, hits)
        return
    together = max(1, _CELLS // min(options.k, rows))
    for at in range(0, len(vectors), together):
        some = None if strength is None else strength[at : at + together]
        found = search(vectors[at : at + together], options.k, some)
        for query in range(len(vectors[at : at + together])):
            yield [ScoredRow(row, score) for row, score in scored(found, query)]
