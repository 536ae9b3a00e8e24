"""Choosing nprobe and rerank: the cheapest pair that reaches the recall target against exact search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import ivfpq
from brivl_search.index.search import Searched, Strength, score, search
from brivl_search.index.types import Tuning

TARGET = 0.99
AT = 10
RERANKS = (20, 50, 100, 200, 400, 800, 1600)
TIMED = 6  # the settings of least estimated cost that are timed against each other
SURE = 1.64  # standard errors: one-sided 95 %
_EPSILON = 1e-6


@dataclass(frozen=True, order=True)
class Choice:
    """One setting, its estimated cost, its measured recall, and that less 1.64 standard errors of the mean.

    Fresh queries reach `safe` nineteen times of twenty; `recall` itself they would miss every other time.
    """

    cost: float
    recall: float
    safe: float
    nprobe: int
    rerank: int


def default(nlist: int) -> Tuning:
    """A cautious guess where no queries were given to measure with."""
    return Tuning(nprobe=max(1, min(nlist, max(8, nlist // 8))), rerank=200)


def cost(nprobe: int, rerank: int, nlist: int, rows: int, dim: int, m: float, shards: int) -> float:
    """Work per query in byte-like units: coarse centroids + codes scanned + rows fetched (random reads weigh 4).

    `m` bytes a row, a quarter of that where 4-bit codes are scanned in registers.
    """
    return shards * nlist * dim + rows * nprobe / nlist * m + 4 * shards * rerank * dim


def full_strength(parts: Sequence[Searched], queries: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Of the correction for hubs, as texts alone are searched: 1 a query; None where nothing is corrected."""
    return np.ones(len(queries), np.float32) if any(part.lowered is not None for part in parts) else None


def choices(
    parts: Sequence[Searched], queries: NDArray[np.float32], target: float, strength: Strength = None
) -> list[Choice]:
    """recall@10 over a grid of (nprobe, rerank), up to the nprobe at which the fewest candidates are enough.

    Rows that tie with the tenth count as found.

    Args:
        parts: the shards of one modality, sharing one quantizer; exact ones count as always found.
        queries: float32 (n, dim), n >= 1.
        target: recall that ends the search.
        strength: of the correction for hubs, as of `search`: what is found is what is found with it.
    """
    probed = [part for part in parts if part.shard.info.kind == "ivfpq" and part.count]
    rows = sum(part.count for part in parts)
    info = probed[0].shard.info
    nlist, m = info.nlist, info.m / (4 if info.codec == "fastscan" else 1)
    dim = queries.shape[1]
    truth = search(parts, queries, AT, None, force_exact=True, strength=strength)
    sought = np.isfinite(truth.scores).sum(axis=1)
    bar = truth.scores[np.arange(len(queries)), sought - 1] - _EPSILON
    others = np.zeros(len(queries), dtype=np.int64)  # true neighbours in exact shards: always found
    for number, part in enumerate(parts):
        if part.shard.info.kind == "exact":
            others += (truth.shards == number).sum(axis=1)

    found: list[Choice] = []
    nprobe = 1
    while True:
        hits = np.zeros((len(RERANKS), len(queries)), dtype=np.int64)
        for part in probed:
            rows_found = ivfpq.candidates(part.shard.index, queries, min(RERANKS[-1], part.count), nprobe, part.live)
            good = score(part, queries, rows_found, strength) >= bar[:, None]
            for place, rerank in enumerate(RERANKS):
                hits[place] += good[:, :rerank].sum(axis=1)
        for place, rerank in enumerate(RERANKS):
            each = np.minimum(hits[place] + others, sought) / sought
            recall, error = float(each.mean()), float(each.std() / np.sqrt(len(each)))
            work = cost(nprobe, rerank, nlist, rows, dim, m, len(probed))
            found.append(Choice(work, recall, recall - SURE * error, nprobe, rerank))
        if nprobe == nlist or found[-len(RERANKS)].safe >= target:
            return found
        nprobe = min(nprobe + max(1, (1 << nprobe.bit_length()) >> 2), nlist)  # 1 2 3 4 6 8 12 16 ...


def tune(
    parts: Sequence[Searched],
    queries: NDArray[np.float32],
    kind: str = "cross-modal",
    target: float = TARGET,
    *,
    timed: bool = False,
    strength: Strength = None,
) -> Tuning:
    """Measure recall@10 over a grid of (nprobe, rerank) and choose the cheapest pair reaching the target.

    Surely so (see `Choice`), if any pair is; if none even reaches it, the pair of best recall is chosen.

    Args:
        parts: the shards of one modality, sharing one quantizer; exact ones count as always found.
        queries: float32 (n, dim), n >= 1, of the other modality, as users would send them.
        kind: what the queries are, kept in the result.
        target: recall@10 against exact search.
        timed: let the clock decide among the settings of least estimated cost (a build does not, so that equal builds
            give equal indexes).
        strength: as of `choices`.
    """
    rows = sum(part.count for part in parts)
    found = choices(parts, queries, target, strength)
    reached = sorted(choice for choice in found if choice.safe >= target)
    reached = reached or sorted(choice for choice in found if choice.recall >= target)
    if not reached:
        reached = [max(found, key=lambda choice: (choice.recall, -choice.cost))]

    def as_tuning(choice: Choice) -> Tuning:
        recall = round(choice.recall, 4)
        return Tuning(choice.nprobe, choice.rerank, recall, len(queries), rows, kind, target)

    if not timed:
        return as_tuning(reached[0])
    settings = [as_tuning(choice) for choice in reached[:TIMED]]
    speeds = [queries_per_second(parts, queries, setting, strength) for setting in settings]
    best = int(np.argmax(speeds))
    return replace(settings[best], qps=round(speeds[best], 1))


def queries_per_second(
    parts: Sequence[Searched], queries: NDArray[np.float32], tuning: Tuning, strength: Strength = None
) -> float:
    """One query after the other, the better of two passes over at most 100 of them."""
    some = queries[:100]
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for query in some:
            search(parts, query[None], AT, tuning, strength=None if strength is None else strength[:1])
        best = max(best, len(some) / (time.perf_counter() - start))
    return best
