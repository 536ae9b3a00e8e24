"""Queries against shards: IVF-PQ proposes, exact dot products decide, results of all shards merge by score.

There is one order of all rows: by score, and of one score by key. It is the same for every k, and after a compaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import ivfpq
from brivl_search.index.shard import BLOCK, Shard
from brivl_search.index.types import SearchResult, Tuning
from brivl_search.steps import step

QUERIES_AT_ONCE = 128
_ROUNDING = 4e-6  # by which two ways to compute a product of unit vectors may differ
_SPARE = 32  # rows kept beyond k before the final scoring, so that rounding in the matmul decides nothing
_CELLS = 1 << 18  # float32 cells gathered at once when candidates are scored: a megabyte stays in the cache

Strength = NDArray[np.float32] | None  # of the correction for hubs, a number a query
Best = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and rows, both (n, c); -inf and -1 where there is none


@dataclass(frozen=True)
class Searched:
    """A shard and the rows of it that count.

    Attributes:
        shard: the sealed shard.
        live: bool (rows,), None if all rows count.
        count: number of rows that count.
        lowered: float32 (rows,), what hubs' scores are lowered by (`HubCorrection.of`); None: nothing is corrected.
    """

    shard: Shard
    live: NDArray[np.bool_] | None
    count: int
    lowered: NDArray[np.float32] | None = None

    def only(self, allow: NDArray[np.bool_]) -> Searched:
        """The same with fewer rows; `allow` is bool (rows,)."""
        live = allow if self.live is None else self.live & allow
        return replace(self, live=live, count=int(np.count_nonzero(live)))


def top(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int, shard: Shard | None = None) -> Best:
    """The k best columns of (n, c) scores, descending; padded with -inf and -1 to k columns.

    Args:
        scores: of the rows.
        rows: (n, c).
        k: columns wanted.
        shard: of the rows: those of one score are put in the order of their keys. None: in that of the rows.
    """
    order = np.lexsort((rows, -scores), axis=1)
    if shard is not None:
        for query in _tied(np.take_along_axis(scores, order[:, : k + 1], 1)):
            of_one, finite = scores[query], np.flatnonzero(rows[query] >= 0)
            keys = np.full(len(of_one), np.iinfo(np.int64).max)
            keys[finite] = shard.order(rows[query, finite])
            order[query] = np.lexsort((keys, -of_one))
    order = order[:, :k]
    best = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return _pad(*best, k)


def _tied(scores: NDArray[np.float32]) -> list[int]:
    """The rows of sorted scores in which two are equal."""
    equal = (scores[:, 1:] == scores[:, :-1]) & np.isfinite(scores[:, 1:])
    return np.flatnonzero(equal.any(axis=1)).tolist()


def _pad(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Best:
    short = k - scores.shape[1]
    if short <= 0:
        return scores, rows
    return (
        np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf),
        np.pad(rows, ((0, 0), (0, short)), constant_values=-1),
    )


def _merged(parts: Sequence[Searched], scores: NDArray[np.float32], places: NDArray[np.int64], k: int) -> Best:
    """The k best of several shards' best: of one score, in the order of their keys.

    Args:
        parts: the shards.
        scores: (n, c); each shard's come in the right order.
        places: (n, c), shard << 32 | row.
        k: columns wanted.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    for query in _tied(scores[:, : k + 1]):
        new = scores[query, 1:] != scores[query, :-1]
        starts = np.flatnonzero(np.concatenate([[True], new]))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), scores.shape[1]], strict=True):
            group = places[query, start:end]
            if start < k and end > start + 1 and group[0] >= 0 and len(np.unique(group >> 32)) > 1:
                keys = [parts[place >> 32].shard.key(place & 0xFFFFFFFF) for place in group.tolist()]
                places[query, start:end] = group[sorted(range(len(keys)), key=keys.__getitem__)]
    return scores[:, :k], places[:, :k]


@step("rerank")
def score(
    part: Searched, queries: NDArray[np.float32], rows: NDArray[np.int64], strength: Strength = None
) -> NDArray[np.float32]:
    """Exact scores of queries (n, dim) with their own candidate rows (n, c); -inf where the row is -1.

    They are dot products, corrected for hubs as strongly as `search` says.
    """
    n, c = rows.shape
    scores = np.empty((n, c), dtype=np.float32)
    none = rows < 0
    some = bool(none.any())
    step = max(1, _CELLS // max(1, c * queries.shape[1]))
    wide = max(1, _CELLS // queries.shape[1])  # columns at once, where one row of them is too much
    for at in range(0, n, step):
        for left in range(0, c, wide if step == 1 else max(c, 1)):
            here = slice(at, at + step), slice(left, left + wide if step == 1 else c)
            wanted = np.maximum(rows[here], 0) if some else rows[here]
            vectors = part.shard.vectors.take(wanted, axis=0).astype(np.float32)
            # einsum, not matmul: equal vectors get equal scores wherever they stand, so ties fall as promised
            np.einsum("ncd,nd->nc", vectors, queries[at : at + step], out=scores[here])
            if strength is not None and part.lowered is not None:
                scores[here] += strength[at : at + step, None] * part.lowered[wanted]
    if some:
        scores[none] = -np.inf
    return scores


@step("search")
def exact(part: Searched, queries: NDArray[np.float32], k: int, strength: Strength = None) -> Best:
    """The k best counting rows of a shard by scanning its float16 block; needs no FAISS.

    Args:
        part: the shard.
        queries: float32 (n, dim).
        k: hits for each query.
        strength: as of `search`.

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
            if strength is not None and part.lowered is not None:
                products += strength[first : first + QUERIES_AT_ONCE, None] * part.lowered[numbers]
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
    best, found = top(score(part, queries, rows, strength), rows, k, part.shard)
    kth = best[:, min(k, part.count) - 1]
    slack = _ROUNDING * np.maximum(1, np.linalg.norm(queries, axis=1))
    for query in np.flatnonzero(np.isfinite(scores[:, -1]) & (scores[:, -1] >= kth - slack)).tolist():
        one = slice(query, query + 1)  # rows that tie with the last may be missing
        mine = None if strength is None else strength[one]
        more = _rows_from(part, queries[query], float(kth[query] - slack[query]), mine)[None]
        best[query], found[query] = top(score(part, queries[one], more, mine), more, k, part.shard)
    return best, found


def _rows_from(part: Searched, query: NDArray[np.float32], least: float, strength: Strength) -> NDArray[np.int64]:
    """int64 (c,): the counting rows whose score for a query (dim,) is not below `least`, but for rounding."""
    found = []
    for at in range(0, len(part.shard.vectors), BLOCK):
        scores = part.shard.vectors[at : at + BLOCK].astype(np.float32) @ query
        if strength is not None and part.lowered is not None:
            scores += strength * part.lowered[at : at + BLOCK]
        near = scores >= least
        if part.live is not None:
            near &= part.live[at : at + BLOCK]
        found.append(np.flatnonzero(near) + at)
    return np.concatenate(found)


@step("search")
def approximate(
    part: Searched, queries: NDArray[np.float32], k: int, nprobe: int, rerank: int, strength: Strength = None
) -> Best:
    """The k best counting rows among `rerank` IVF-PQ candidates, scored exactly.

    Lists are added, and at last the whole shard scanned, for queries that would get fewer hits than there are rows.

    Args:
        part: an ivfpq shard.
        queries: float32 (n, dim).
        k: hits for each query.
        nprobe: inverted lists to visit.
        rerank: candidates for each query; at least 4 k are taken.
        strength: as of `search`. Candidates are proposed without the correction.

    Returns:
        float32 scores and int64 rows, both (n, k).
    """
    wanted = min(k, part.count)
    count = min(max(rerank, 4 * k), part.count)
    if part.count <= 4 * count:  # so few rows count that scanning them is cheaper and exact
        return exact(part, queries, k, strength)
    nlist = part.shard.info.nlist
    scores: NDArray[np.float32] = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows: NDArray[np.int64] = np.full((len(queries), k), -1, dtype=np.int64)
    short = np.arange(len(queries))
    nprobe = max(1, min(nprobe, nlist))
    while len(short):
        found, near = ivfpq.near_codes(part.shard.index, queries[short], count, nprobe, part.live)
        mine = None if strength is None else strength[short]
        exactly = score(part, queries[short], found, mine)
        scores[short], rows[short] = top(exactly, found, k, part.shard)
        for at in _cut(exactly, found, near, k):
            query = short[at]
            own = None if mine is None else mine[at : at + 1]
            scores[query], rows[query] = _with_ties(part, queries[query], exactly[at], found[at], near[at], k, own)
        short = short[(rows[short, wanted - 1] < 0)]
        if nprobe == nlist:
            break
        nprobe = min(4 * nprobe, nlist)
    if len(short):
        mine = None if strength is None else strength[short]
        scores[short], rows[short] = exact(part, queries[short], k, mine)
    return scores, rows


def _cut(exactly: NDArray[np.float32], found: NDArray[np.int64], near: NDArray[np.float32], k: int) -> list[int]:
    """The queries of which one of the k best candidates has a code as far away as the last one: others may have it."""
    order = np.argsort(-exactly, axis=1, kind="stable")[:, :k]
    last = near[:, -1:]
    best = (np.take_along_axis(near, order, 1) <= last) & (np.take_along_axis(found, order, 1) >= 0)
    return np.flatnonzero(best.any(axis=1) & (found[:, -1] >= 0)).tolist()


def _with_ties(
    part: Searched,
    query: NDArray[np.float32],
    exactly: NDArray[np.float32],
    found: NDArray[np.int64],
    near: NDArray[np.float32],
    k: int,
    strength: Strength,
) -> Best:
    """The k best candidates of a query (dim,), with all rows whose scores equal those of the candidates at the cut.

    No other row joins them, so that the first hits are the same for every k.
    """
    best = np.argsort(-exactly, kind="stable")[:k]
    wanted = np.unique(exactly[best][near[best] <= near[-1]])
    slack = _ROUNDING * max(1.0, float(np.linalg.norm(query)))
    rows = _rows_from(part, query, float(wanted[0]) - slack, strength)
    scores = score(part, query[None], rows[None], strength)[0]
    tied = np.isin(scores, wanted) & ~np.isin(rows, found)
    both = np.concatenate([exactly, scores[tied]])[None], np.concatenate([found, rows[tied]])[None]
    of_one, of_rows = top(*both, k, part.shard)
    return of_one[0], of_rows[0]


def search(
    parts: Sequence[Searched],
    queries: NDArray[np.float32],
    k: int,
    tuning: Tuning | None,
    *,
    force_exact: bool = False,
    strength: Strength = None,
) -> SearchResult:
    """The k best rows of all shards for each query.

    Args:
        parts: the shards; a result's shard number is the position in this sequence.
        queries: float32 (n, dim).
        k: hits for each query.
        tuning: nprobe and rerank; needed where a shard is of kind ivfpq.
        force_exact: scan every shard.
        strength: how strongly each query's scores are corrected for hubs, float32 (n,): 1 for a text; None: not at all.
    """
    n = len(queries)
    scores: NDArray[np.float32] = np.full((n, 0), -np.inf, dtype=np.float32)
    places: NDArray[np.int64] = np.full((n, 0), -1, dtype=np.int64)  # shard << 32 | row: sorts as (shard, row)
    for number, part in enumerate(parts):
        if part.count == 0:
            continue
        if force_exact or part.shard.info.kind == "exact" or tuning is None:
            found, rows = exact(part, queries, k, strength)
        else:
            found, rows = approximate(part, queries, k, tuning.nprobe, tuning.rerank, strength)
        place = np.where(rows < 0, -1, rows | (number << 32))
        scores, places = _merged(parts, np.hstack([scores, found]), np.hstack([places, place]), k)
    scores, places = _pad(scores, places, k)
    none = places < 0
    shards = np.where(none, -1, places >> 32).astype(np.int32)
    rows = np.where(none, -1, places & 0xFFFFFFFF).astype(np.int64)
    return SearchResult(scores, shards, rows, _lowered(parts, shards, rows, strength))


def _lowered(
    parts: Sequence[Searched], shards: NDArray[np.int32], rows: NDArray[np.int64], strength: Strength
) -> NDArray[np.float32] | None:
    """How much of each score, (n, k), is a correction for hubs; None if none is."""
    if strength is None or all(part.lowered is None for part in parts):
        return None
    found: NDArray[np.float32] = np.zeros(rows.shape, np.float32)
    for number, part in enumerate(parts):
        if part.lowered is not None:
            here = shards == number
            found[here] = part.lowered[rows[here]]
    return found * strength[:, None]
