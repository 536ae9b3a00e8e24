"""What is computed from ranks: R@k by three definitions, median and mean rank, MRR and mAP.

    any        a query counts as found when any of its true partners is among the k best: Chinese-CLIP's rule
    diagonal   pairs 1:1 in order, query i looks for candidate i alone (N × N, BriVL's own script): the any-hit rule
               over such pairs, so what differs is the data, the first caption of each image
    share      the share of a query's true partners among the k best, averaged over queries (as in trec_eval)

With one partner for each query the three agree.

MRR is the mean of 1 / rank of the best-placed partner. AP of a query is the mean of j / (rank of the j-th partner), its
partners taken in rank order; mAP is the mean of AP over queries (Manning et al., Introduction to Information Retrieval,
8.4). Both lie between 0 and 1. In lists that end at some depth a partner further down adds 0 to either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from brivl_search.metrics.bootstrap import Bootstrap
from brivl_search.metrics.ranks import Ranks

Definition = Literal["any", "diagonal", "share"]
DEFINITIONS: dict[Definition, str] = {
    "any": "recall@k (any-hit): share of queries with at least one true partner among the k best candidates",
    "diagonal": "recall@k (diagonal): pairs 1:1 in order, share of queries whose own partner is among the k best",
    "share": "recall@k (share of positives): share of a query's true partners among the k best candidates, averaged",
}
DEFINITION = DEFINITIONS["any"]


@dataclass(frozen=True)
class Recall:
    """Retrieval figures of one direction.

    Attributes:
        recall: R@k in percent, by k.
        median_rank: of each query's best-placed partner; 1 is best.
        queries: how many queries.
        candidates: how many were compared with each.
        mean_rank: of each query's best-placed partner; None where one is missing from its list.
        mrr: mean reciprocal rank, 0 to 1.
        mean_average_precision: 0 to 1.
        intervals: (low, high) by figure: "R@1", ..., "median_rank", "mean_rank", "MRR", "mAP", "mean_recall"; empty if
            not asked for.
    """

    recall: dict[int, float]
    median_rank: float
    queries: int
    candidates: int
    mean_rank: float | None = None
    mrr: float = 0.0
    mean_average_precision: float = 0.0
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def mean_recall(self) -> float:
        """Mean of R@k over the k's, in percent: the MR of MUGE and, over both directions, of Wukong."""
        return float(np.mean(list(self.recall.values())))

    def figures(self) -> dict[str, float | None]:
        """All figures by the names of `intervals`."""
        return {
            **{f"R@{k}": value for k, value in self.recall.items()},
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
            "MRR": self.mrr,
            "mAP": self.mean_average_precision,
            "mean_recall": self.mean_recall,
        }


@dataclass(frozen=True, eq=False)
class PerQuery:
    """The parts that figures are means (or the median) of.

    Attributes:
        ks: the cut-offs.
        recall: float64 (q, len(ks)), percent.
        first: int64 (q,), rank of the best-placed partner.
        reciprocal: float64 (q,), 1 / first, 0 if in no list.
        precision: float64 (q,), average precision.
        whole: whether every query has a partner with a known rank.
    """

    ks: tuple[int, ...]
    recall: np.ndarray
    first: np.ndarray
    reciprocal: np.ndarray
    precision: np.ndarray
    whole: bool

    def samples(self, bootstrap: Bootstrap, cluster: np.ndarray, clusters: int) -> dict[str, np.ndarray]:
        """float64 (resamples,) by figure.

        Args:
            bootstrap: how to draw.
            cluster: int64 (q,), 0 to clusters - 1: queries with one number are drawn together.
            clusters: how many there are.
        """
        columns = [*self.recall.T, self.reciprocal, self.precision, self.first]
        means = bootstrap.means(np.stack(columns, axis=1).astype(np.float64), cluster, clusters).T
        n = len(self.ks)
        out = {f"R@{k}": means[j] for j, k in enumerate(self.ks)}
        out["median_rank"] = bootstrap.medians(self.first, cluster, clusters)
        if self.whole:
            out["mean_rank"] = means[n + 2]
        return {**out, "MRR": means[n], "mAP": means[n + 1], "mean_recall": means[:n].mean(axis=0)}


def per_query(ranks: Ranks, ks: Sequence[int], definition: Definition = "any") -> PerQuery:
    """The parts of the figures for every query."""
    first, counts = ranks.first, np.diff(ranks.starts)
    found = ranks.found
    if definition == "share":
        inside = ranks.ranks[:, None] <= np.asarray(ks)
        recall = np.add.reduceat(inside & found[:, None], ranks.starts[:-1], axis=0, dtype=np.float64) / counts[:, None]
    else:
        recall = (first[:, None] <= np.minimum(ks, ranks.depth or ranks.candidates)).astype(np.float64)
    order = np.lexsort((ranks.ranks, np.repeat(np.arange(ranks.queries), counts)))
    place = np.arange(1, len(order) + 1) - np.repeat(ranks.starts[:-1], counts)
    parts = np.where(found[order], place / ranks.ranks[order], 0.0)
    known = first <= (ranks.depth or ranks.candidates)
    return PerQuery(
        ks=tuple(ks),
        recall=100 * recall,
        first=first,
        reciprocal=np.where(known, 1.0 / first, 0.0),
        precision=np.add.reduceat(parts, ranks.starts[:-1]) / counts if len(parts) else parts,
        whole=bool(known.all()),
    )


def recall_curve(ranks: Ranks, definition: Definition, deepest: int = 100) -> np.ndarray:
    """float64: R@1, R@2, ... in percent, up to `deepest`, the candidates, or where the lists end."""
    ks = range(1, min(deepest, ranks.candidates, ranks.depth or ranks.candidates) + 1)
    curve: np.ndarray = per_query(ranks, ks, definition).recall.mean(axis=0)
    return curve


def summarize(
    ranks: Ranks | np.ndarray, ks: Sequence[int], candidates: int | None = None, *, definition: Definition = "any"
) -> Recall:
    """The figures of one direction, without intervals (see `PerQuery.samples`).

    Args:
        ranks: of all partners; or int64 (q,), of one partner a query.
        ks: the cut-offs of R@k.
        candidates: how many were compared, where `ranks` is an array.
        definition: of R@k.
    """
    if isinstance(ranks, np.ndarray):
        most = int(ranks.max(initial=1)) if candidates is None else candidates
        ranks = Ranks(ranks, np.arange(len(ranks) + 1), most)
    parts = per_query(ranks, ks, definition)
    return Recall(
        recall={k: float(value) for k, value in zip(ks, parts.recall.mean(axis=0), strict=True)},
        median_rank=float(np.median(parts.first)),
        queries=ranks.queries,
        candidates=ranks.candidates,
        mean_rank=float(parts.first.mean()) if parts.whole else None,
        mrr=float(parts.reciprocal.mean()),
        mean_average_precision=float(parts.precision.mean()),
    )
