"""Choosing nprobe and rerank: the cheapest pair that reaches the recall target against exact search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import ivfpq
from .search import Searched, score, search
from .types import Tuning

TARGET = 0.99
AT = 10
RERANKS = (20, 50, 100, 200, 400, 800)
_EPSILON = 1e-6


def default(nlist: int) -> Tuning:
    """A cautious guess where no queries were given to measure with."""
    return Tuning(nprobe=max(1, min(nlist, max(8, nlist // 8))), rerank=200)


def cost(nprobe: int, rerank: int, nlist: int, rows: int, dim: int, m: int, shards: int) -> float:
    """Work per query in byte-like units: coarse centroids + codes scanned + rows fetched (random reads weigh 4)."""
    return shards * nlist * dim + rows * nprobe / nlist * m + 4 * shards * rerank * dim


def tune(parts: Sequence[Searched], queries: NDArray[np.float32], kind: str = "cross-modal") -> Tuning:
    """Measure recall@10 over a grid of (nprobe, rerank) and choose the cheapest pair reaching 0.99.

    Rows that tie with the tenth count as found. If nothing reaches the target, the pair of best recall is chosen.

    Args:
        parts: the shards of one modality, sharing one quantizer; exact ones count as always found.
        queries: float32 (n, dim), n >= 1, of the other modality, as users would send them.
        kind: what the queries are, kept in the result.
    """
    probed = [part for part in parts if part.shard.info.kind == "ivfpq" and part.count]
    rows = sum(part.count for part in parts)
    nlist, m = probed[0].shard.info.nlist, probed[0].shard.info.m
    dim = queries.shape[1]
    truth = search(parts, queries, AT, None, force_exact=True)
    sought = np.isfinite(truth.scores).sum(axis=1)
    bar = truth.scores[np.arange(len(queries)), sought - 1] - _EPSILON
    others = np.zeros(len(queries), dtype=np.int64)  # true neighbours in exact shards: always found
    for number, part in enumerate(parts):
        if part.shard.info.kind == "exact":
            others += (truth.shards == number).sum(axis=1)

    choices: list[tuple[float, float, int, int]] = []  # cost, recall, nprobe, rerank
    nprobe = 1
    while True:
        hits = np.zeros((len(RERANKS), len(queries)), dtype=np.int64)
        for part in probed:
            found = ivfpq.candidates(part.shard.index, queries, min(RERANKS[-1], part.count), nprobe, part.live)
            good = score(part.shard, queries, found) >= bar[:, None]
            for place, rerank in enumerate(RERANKS):
                hits[place] += good[:, :rerank].sum(axis=1)
        for place, rerank in enumerate(RERANKS):
            recall = float(np.mean(np.minimum(hits[place] + others, sought) / sought))
            choices.append((cost(nprobe, rerank, nlist, rows, dim, m, len(probed)), recall, nprobe, rerank))
        if nprobe == nlist or choices[-len(RERANKS)][1] >= TARGET:  # even the fewest candidates are enough here
            break
        nprobe = min(2 * nprobe, nlist)

    reached = [choice for choice in choices if choice[1] >= TARGET]
    best = min(reached) if reached else max(choices, key=lambda choice: (choice[1], -choice[0]))
    return Tuning(best[2], best[3], round(best[1], 4), len(queries), rows, kind)
