"""recall@k and median rank, by the any-hit rule: a query counts as found when any of its true partners is in the top k.

This is the rule of the BriVL and Chinese-CLIP evaluations; with one partner per query it is the usual recall@k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFINITION = "recall@k (any-hit): share of queries with at least one true partner among the k best candidates"


@dataclass(frozen=True)
class Recall:
    """Retrieval figures of one direction: recall in percent by k, median rank (1 = best), and how much was compared."""

    recall: dict[int, float]
    median_rank: float
    queries: int
    candidates: int


def ranks_exact(
    queries: np.ndarray, candidates: np.ndarray, truth: Sequence[Sequence[int]], block: int = 1024
) -> np.ndarray:
    """Rank (1 = best) of each query's best-placed true partner among all candidates, exactly.

    Equal scores rank by candidate number, as in a stable sort.

    Args:
        queries: float32 (q, dim).
        candidates: float32 (n, dim).
        truth: for each query the candidate numbers of its partners; at least one.
        block: queries per matrix product; bounds the memory to block × n float32.

    Returns:
        int64 (q,).
    """
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ candidates.T
        for i, row in enumerate(scores):
            partners = np.asarray(truth[start + i], dtype=np.int64)
            best_score = row[partners].max()
            best = partners[row[partners] == best_score].min()
            ranks[start + i] = 1 + np.count_nonzero(row > best_score) + np.count_nonzero(row[:best] == best_score)
    return ranks


def ranks_in_lists(lists: np.ndarray, truth: Sequence[Sequence[int]]) -> np.ndarray:
    """Rank of the first true partner in each query's result list (q, k), -1 padded; k + 1 where there is none."""
    ranks = np.empty(len(lists), dtype=np.int64)
    for i, row in enumerate(lists):
        hits = np.flatnonzero(np.isin(row, np.asarray(truth[i], dtype=np.int64)))
        ranks[i] = hits[0] + 1 if len(hits) else len(row) + 1
    return ranks


def summarize(ranks: np.ndarray, ks: Sequence[int], candidates: int) -> Recall:
    """recall@k in percent for every k, and the median rank."""
    return Recall(
        recall={k: float(np.mean(ranks <= k) * 100) for k in ks},
        median_rank=float(np.median(ranks)),
        queries=len(ranks),
        candidates=candidates,
    )
