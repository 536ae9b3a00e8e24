"""Exact ranks in pieces: neither all scores nor all vectors in float32 are ever in memory at once.

A rank is a fact of two vectors, not of how the work was cut. A score is the float32 dot product as `pair_scores` (and
the index's own re-rank) takes it, equal for equal vectors wherever they stand; equal scores rank by candidate number.
Matrix products decide only what is further apart than their rounding can reach, the few others are scored that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Truth = Sequence[Sequence[int]]

QUERIES = 1024
CANDIDATES = 16384
_UNIT = 2.0**-24  # of float32 rounding
_CELLS = 1 << 22  # float32 cells gathered at once


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the true partners of each query stand; 1 is best.

    Attributes:
        ranks: int64 (p,), one query's partners after another's, in the order of the truth; depth + 1 where a partner
            is not in its list.
        starts: int64 (q + 1,): the partners of query i are ranks[starts[i] : starts[i + 1]].
        candidates: how many were compared.
        depth: how long the lists were; None: every candidate has a rank.
    """

    ranks: np.ndarray
    starts: np.ndarray
    candidates: int
    depth: int | None = None

    @property
    def queries(self) -> int:
        return len(self.starts) - 1

    @property
    def first(self) -> np.ndarray:
        """int64 (q,): rank of each query's best-placed partner."""
        if not self.queries:
            return np.zeros(0, dtype=np.int64)
        best: np.ndarray = np.minimum.reduceat(self.ranks, self.starts[:-1])
        return best

    @property
    def found(self) -> np.ndarray:
        """bool (p,): whether the partner has a rank at all."""
        found: np.ndarray = self.ranks <= (self.candidates if self.depth is None else self.depth)
        return found


def flat_truth(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Partners int64 (p,) and where each query's begin, int64 (q + 1,).

    Raises:
        ValueError: a query has no partner.
    """
    counts = np.fromiter((len(partners) for partners in truth), np.int64, len(truth))
    if not counts.all():
        raise ValueError(f"query {int(np.argmin(counts))} has no true partner")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    flat = np.fromiter((one for partners in truth for one in partners), np.int64, int(starts[-1]))
    return flat, starts


def pair_scores(queries: np.ndarray, candidates: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 (p,): dot products of queries[left] with candidates[right].

    Args:
        queries: floating (q, dim).
        candidates: floating (n, dim).
        left: integer (p,).
        right: integer (p,).
    """
    scores = np.empty(len(left), dtype=np.float32)
    step = max(1, _CELLS // max(1, queries.shape[1]))
    for at in range(0, len(left), step):
        some = slice(at, at + step)
        scores[some] = _dots(_float32(candidates[right[some]])[:, None], _float32(queries[left[some]]))[:, 0]
    return scores


def partner_ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    truth: Truth,
    *,
    added: np.ndarray | None = None,
    block: int = QUERIES,
    candidate_block: int = CANDIDATES,
) -> Ranks:
    """Ranks of all true partners of all queries among all candidates.

    Args:
        queries: floating (q, dim), finite; may be float16 or a memory map.
        candidates: floating (n, dim), finite; the same.
        truth: for each query the candidate numbers of its partners; at least one.
        added: float32 (n,), to every score of a candidate (a correction for hubs).
        block: queries per matrix product.
        candidate_block: candidates per matrix product; the memory is about block × candidate_block float32.

    Raises:
        ValueError: a query has no partner.
    """
    partners, starts = flat_truth(truth)
    own = pair_scores(queries, candidates, np.repeat(np.arange(len(queries)), np.diff(starts)), partners)
    if added is not None:
        own = own + added[partners]
    ranks = np.ones(len(partners), dtype=np.int64)
    for first in range(0, len(queries), block):
        wanted = _float32(queries[first : first + block])
        lengths = _lengths(wanted)
        for at in range(0, len(candidates), candidate_block):
            some = _float32(candidates[at : at + candidate_block])
            more = None if added is None else added[at : at + candidate_block]
            products = wanted @ some.T if more is None else wanted @ some.T + more
            slack = _slack(lengths, some, more)
            for i, row in enumerate(products):
                for p in range(starts[first + i], starts[first + i + 1]):
                    ranks[p] += _before(row, slack[i], wanted[i], some, own[p], partners[p] - at, more)
    return Ranks(ranks, starts, len(candidates))


def ranks_exact(queries: np.ndarray, candidates: np.ndarray, truth: Truth, block: int = QUERIES) -> np.ndarray:
    """int64 (q,): rank (1 = best) of each query's best-placed true partner; see `partner_ranks`."""
    return partner_ranks(queries, candidates, truth, block=block).first


def ranks_in_lists(lists: np.ndarray, truth: Truth, candidates: int | None = None) -> Ranks:
    """Ranks of the true partners in result lists.

    Args:
        lists: int64 (q, k), candidate numbers, best first, -1 padded.
        truth: for each query the candidate numbers of its partners; at least one.
        candidates: how many were searched [default: k].
    """
    partners, starts = flat_truth(truth)
    depth = lists.shape[1]
    ranks = np.full(len(partners), depth + 1, dtype=np.int64)
    for i, row in enumerate(lists):
        mine = slice(starts[i], starts[i + 1])
        which, places = np.nonzero(partners[mine, None] == row)
        ranks[mine][which[::-1]] = places[::-1] + 1  # backwards: of two places the better one is written last
    return Ranks(ranks, starts, depth if candidates is None else candidates, depth)


def top_lists(
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int,
    *,
    added: np.ndarray | None = None,
    block: int = QUERIES,
    candidate_block: int = CANDIDATES,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates of each query, best first, exactly; see `partner_ranks` for the arguments.

    Returns:
        int64 (q, min(k, n)) candidate numbers and their float32 scores.
    """
    k = min(k, len(candidates))
    numbers = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for first in range(0, len(queries), block):
        wanted = _float32(queries[first : first + block])
        lengths = _lengths(wanted)
        best: list[tuple[np.ndarray, np.ndarray]] = [(numbers[0, :0], scores[0, :0])] * len(wanted)
        for at in range(0, len(candidates), candidate_block):
            some = _float32(candidates[at : at + candidate_block])
            more = None if added is None else added[at : at + candidate_block]
            products = wanted @ some.T if more is None else wanted @ some.T + more
            slack = _slack(lengths, some, more)
            for i, row in enumerate(products):
                seen, seen_scores = best[i]
                if len(seen) == k:
                    floor = seen_scores[-1] - slack[i]
                elif len(row) > k:  # the k-th best may be 1 slack off in either product, and a better one 1 more
                    floor = np.partition(row, -k)[-k] - 2 * slack[i]
                else:
                    floor = np.float32(-np.inf)
                near = np.flatnonzero(row >= floor)
                found = np.concatenate([seen, near + at])
                near_scores = _dots(some[near][None], wanted[i : i + 1])[0]
                found_scores = np.concatenate([seen_scores, near_scores if more is None else near_scores + more[near]])
                order = np.lexsort((found, -found_scores))[:k]
                best[i] = found[order], found_scores[order]
        for i, (found, found_scores) in enumerate(best):
            numbers[first + i], scores[first + i] = found, found_scores
    return numbers, scores


def _before(
    row: np.ndarray,
    slack: np.float32,
    query: np.ndarray,
    vectors: np.ndarray,
    own: np.float32,
    number: int,
    added: np.ndarray | None,
) -> int:
    """How many of these candidates stand before the partner of score `own`, whose place among them is `number`."""
    upper = own + slack
    near = row >= own - slack
    close = np.flatnonzero(near & (row <= upper))
    ahead = np.count_nonzero(near) - len(close)
    if not len(close):
        return int(ahead)
    scores = _dots(vectors[close][None], query[None])[0]
    if added is not None:
        scores = scores + added[close]
    return int(ahead + np.count_nonzero(scores > own) + np.count_nonzero(scores[close < number] == own))


def _dots(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """float32 (n, c) of (n, c, dim) and (n, dim); as `index.search.score`, and equal for equal pairs like there."""
    dots: np.ndarray = np.einsum("ncd,nd->nc", vectors, queries)
    return dots


def _float32(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return lengths


def _slack(lengths: np.ndarray, vectors: np.ndarray, added: np.ndarray | None) -> np.ndarray:
    """float32 (q,): how far two float32 dot products of a query with one of `vectors` can be apart.

    Each is within d u |x||y| of the true product, in whatever order it is summed (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1); 4 u more for the sum with it, and for that with what is `added`.
    """
    longest = float(_lengths(vectors).max(initial=0))
    slack: np.ndarray = 2.02 * (vectors.shape[1] + 4) * _UNIT * longest * lengths
    if added is not None:
        slack = slack + 4 * _UNIT * float(np.abs(added).max(initial=0))
    return slack.astype(np.float32)
