"""Queries against shards: IVF-PQ proposes, exact dot products decide, results of all shards merge by score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import ivfpq
from brivl_search.index.shard import BLOCK, Shard
from brivl_search.index.types import SearchResult, Tuning
from brivl_search.steps import step

QUERIES_AT_ONCE = 128
_SPARE = 32  # rows kept beyond k before the final scoring, so that rounding in the matmul decides nothing
_CELLS = 1 << 18  # float32 cells gathered at once when candidates are scored: a megabyte stays in the cache

Best = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and rows, both (n, c); -inf and -1 where there is none


@dataclass(frozen=True)
class Searched:
    """A shard and the rows of it that count.

    Attributes:
        shard: the sealed shard.
        live: bool (rows,), None if all rows count.
        count: number of rows that count.
    """

    shard: Shard
    live: NDArray[np.bool_] | None
    count: int

    def only(self, allow: NDArray[np.bool_]) -> Searched:
        """The same with fewer rows; `allow` is bool (rows,)."""
        live = allow if self.live is None else self.live & allow
        return Searched(self.shard, live, int(np.count_nonzero(live)))


def top(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Best:
    """The k best columns of (n, c) scores, descending, ties by lower row; padded with -inf and -1 to k columns."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    best = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return _pad(*best, k)


def _pad(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Best:
    short = k - scores.shape[1]
    if short <= 0:
        return scores, rows
    return (
        np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf),
        np.pad(rows, ((0, 0), (0, short)), constant_values=-1),
    )


@step("rerank")
def score(shard: Shard, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Exact dot products of queries (n, dim) with their own candidate rows (n, c); -inf where the row is -1."""
    n, c = rows.shape
    scores = np.empty((n, c), dtype=np.float32)
    none = rows < 0
    some = bool(none.any())
    step = max(1, _CELLS // max(1, c * queries.shape[1]))
    wide = max(1, _CELLS // queries.shape[1])  # columns at once, where one row of them is too much
    for at in range(0, n, step):
        for left in range(0, c, wide if step == 1 else max(c, 1)):
            here = slice(at, at + step), slice(left, left + wide if step == 1 else c)
            part = rows[here]
            vectors = shard.vectors.take(np.maximum(part, 0) if some else part, axis=0).astype(np.float32)
            # einsum, not matmul: equal vectors get equal scores wherever they stand, so ties fall as promised
            np.einsum("ncd,nd->nc", vectors, queries[at : at + step], out=scores[here])
    if some:
        scores[none] = -np.inf
    return scores


@step("search")
def exact(part: Searched, queries: NDArray[np.float32], k: int) -> Best:
    """The k best counting rows of a shard by scanning its float16 block; needs no FAISS.

    Args:
        part: the shard.
        queries: float32 (n, dim).
        k: hits for each query.

    Returns:
        float32 scores and int64 rows, both (n, k).
    """
    keep = k + _SPARE
    n = len(queries)
    scores: NDArray[np.float32] = np.full((n, 0), -np.inf, dtype=np.float32)
    rows: NDArray[np.int64] = np.full((n, 0), -1, dtype=np.int64)
    vectors, live = part.shard.vectors, part.live
    chosen = None if live is None or part.count > len(live) // 2 else np.flatnonzero(live)
    for at in range(0, len(vectors) if chosen is None else len(chosen), BLOCK):
        if chosen is None:
            numbers = np.arange(at, min(at + BLOCK, len(vectors)))
            block = vectors[at : at + BLOCK].astype(np.float32)
            dead = None if live is None else ~live[at : at + BLOCK]
        else:
            numbers, dead = chosen[at : at + BLOCK], None
            block = vectors[numbers].astype(np.float32)
        found_scores, found_rows = [], []
        for first in range(0, n, QUERIES_AT_ONCE):
            products = queries[first : first + QUERIES_AT_ONCE] @ block.T
            if dead is not None:
                products[:, dead] = -np.inf
            if products.shape[1] > keep:
                columns = np.argpartition(products, -keep, axis=1)[:, -keep:]
                products = np.take_along_axis(products, columns, 1)
                found_rows.append(numbers[columns])
            else:
                found_rows.append(np.broadcast_to(numbers, products.shape))
            found_scores.append(products)
        block_rows = np.concatenate(found_rows)
        block_scores = np.concatenate(found_scores)
        block_rows = np.where(np.isneginf(block_scores), -1, block_rows)
        scores, rows = top(np.hstack([scores, block_scores]), np.hstack([rows, block_rows]), keep)
    return top(score(part.shard, queries, rows), rows, k)


@step("search")
def approximate(part: Searched, queries: NDArray[np.float32], k: int, nprobe: int, rerank: int) -> Best:
    """The k best counting rows among `rerank` IVF-PQ candidates, scored exactly.

    Lists are added, and at last the whole shard scanned, for queries that would get fewer hits than there are rows.

    Args:
        part: an ivfpq shard.
        queries: float32 (n, dim).
        k: hits for each query.
        nprobe: inverted lists to visit.
        rerank: candidates for each query; at least 4 k are taken.

    Returns:
        float32 scores and int64 rows, both (n, k).
    """
    wanted = min(k, part.count)
    count = min(max(rerank, 4 * k), part.count)
    if part.count <= 4 * count:  # so few rows count that scanning them is cheaper and exact
        return exact(part, queries, k)
    nlist = part.shard.info.nlist
    scores: NDArray[np.float32] = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows: NDArray[np.int64] = np.full((len(queries), k), -1, dtype=np.int64)
    short = np.arange(len(queries))
    nprobe = max(1, min(nprobe, nlist))
    while len(short):
        found = ivfpq.candidates(part.shard.index, queries[short], count, nprobe, part.live)
        scores[short], rows[short] = top(score(part.shard, queries[short], found), found, k)
        short = short[(rows[short, wanted - 1] < 0)]
        if nprobe == nlist:
            break
        nprobe = min(4 * nprobe, nlist)
    if len(short):
        scores[short], rows[short] = exact(part, queries[short], k)
    return scores, rows


def search(
    parts: Sequence[Searched],
    queries: NDArray[np.float32],
    k: int,
    tuning: Tuning | None,
    *,
    force_exact: bool = False,
) -> SearchResult:
    """The k best rows of all shards for each query.

    Args:
        parts: the shards; a result's shard number is the position in this sequence.
        queries: float32 (n, dim).
        k: hits for each query.
        tuning: nprobe and rerank; needed where a shard is of kind ivfpq.
        force_exact: scan every shard.
    """
    n = len(queries)
    scores: NDArray[np.float32] = np.full((n, 0), -np.inf, dtype=np.float32)
    places: NDArray[np.int64] = np.full((n, 0), -1, dtype=np.int64)  # shard << 32 | row: sorts as (shard, row)
    for number, part in enumerate(parts):
        if part.count == 0:
            continue
        if force_exact or part.shard.info.kind == "exact" or tuning is None:
            found, rows = exact(part, queries, k)
        else:
            found, rows = approximate(part, queries, k, tuning.nprobe, tuning.rerank)
        place = np.where(rows < 0, -1, rows | (number << 32))
        scores, places = top(np.hstack([scores, found]), np.hstack([places, place]), k)
    scores, places = _pad(scores, places, k)
    none = places < 0
    return SearchResult(
        scores=scores,
        shards=np.where(none, -1, places >> 32).astype(np.int32),
        rows=np.where(none, -1, places & 0xFFFFFFFF).astype(np.int64),
    )
