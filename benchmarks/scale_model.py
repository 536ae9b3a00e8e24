"""What a collection of a given size takes: days to build, hosts, bytes, and the time of a query. Arithmetic, no I/O.

The costs of one operation are measured by `scale.py measure` on one machine; this module only multiplies. A query on
one searcher, all of whose shards share one quantizer, takes

    shards · (shard + coarse · nlist · dim + visit · nprobe + fetch · rerank · dim)
        + scan · rows · nprobe / nlist · code_bytes

seconds (each shard's FAISS index asks the quantizer anew). The answer waits for the slowest of S searchers: if one's
time is log-normal with median m and a p99 of r · m, the quantile q of the slowest is that of one at q^(1/S), plus
`gather` seconds for every searcher asked. At a utilisation u every time is 1 / (1 - u) as long (processor sharing).

Not modelled: recall (nprobe and rerank are given, see `eval`), reads from a disk that is slower than memory, a network
that is full, hosts of different speeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

SHARD_LIMIT = (1 << 32) - (1 << 20)  # bytes of an LMDB value; a shard's vectors are one
ITERATIONS = 10  # of FAISS's k-means for lists


@dataclass(frozen=True)
class Costs:
    """What was measured; seconds on one core unless said otherwise.

    Attributes:
        shard: of asking a shard, whatever is in it.
        coarse: of one dimension of one centroid, for one query.
        visit: of opening one list.
        scan: of one byte of codes.
        fetch: of one dimension of one candidate that is scored exactly.
        tail: p99 of one searcher's time over its median.
        gather: of asking one more searcher and merging its answer.
        row: of writing one row to a shard and to the catalog.
        assign: of one dimension of one centroid, for one row of many (training and building).
        code_bytes: of a row, that a scan reads.
        shard_bytes: of a row in its shard beside its 2 · dim bytes of vectors.
        catalog_bytes: of a row in the catalog.
    """

    shard: float
    coarse: float
    visit: float
    scan: float
    fetch: float
    tail: float
    gather: float
    row: float
    assign: float
    code_bytes: float
    shard_bytes: float
    catalog_bytes: float


@dataclass(frozen=True)
class Plan:
    """A collection and the machines it lies on.

    Attributes:
        rows: pictures.
        dim: of a vector.
        nlist: lists of the quantizer that all shards share.
        nprobe: lists that a query visits in each shard.
        rerank: candidates that each shard scores exactly.
        shard_rows: of a shard; 0: as many as LMDB holds.
        searchers: processes among which the shards are dealt.
        cores: that all searchers together have; 0: one each.
        embedders: hosts that embed.
        images_per_second: of one of them.
        writers: processes that seal shards.
        load: utilisation of a searcher, 0 to below 1.
    """

    rows: int
    dim: int
    nlist: int
    nprobe: int
    rerank: int
    shard_rows: int = 0
    searchers: int = 1
    cores: int = 0
    embedders: int = 1
    images_per_second: float = 1.0
    writers: int = 1
    load: float = 0.0

    @property
    def shards(self) -> int:
        most = self.shard_rows or SHARD_LIMIT // (2 * self.dim)
        return max(1, math.ceil(self.rows / most))


def work(costs: Costs, plan: Plan, shards: int, rows: float) -> float:
    """Seconds of one core that a query takes of `shards` shards with `rows` rows together."""
    each = costs.shard + costs.coarse * plan.nlist * plan.dim + costs.visit * plan.nprobe
    each += costs.fetch * plan.rerank * plan.dim
    return shards * each + costs.scan * costs.code_bytes * rows * plan.nprobe / plan.nlist


def query_seconds(costs: Costs, plan: Plan, quantile: float = 0.5) -> float:
    """The quantile of a query's time: the slowest searcher's, and what gathering adds. In one process: `work`."""
    searchers = min(plan.searchers, plan.shards)
    most = math.ceil(plan.shards / searchers)
    one = work(costs, plan, most, plan.rows * most / plan.shards)
    cores = min(plan.cores or searchers, searchers)
    one = max(one, work(costs, plan, plan.shards, plan.rows) / cores)
    spread = math.log(costs.tail) / NormalDist().inv_cdf(0.99)
    slowest = one * math.exp(spread * NormalDist().inv_cdf(quantile ** (1 / searchers)))
    return slowest / (1 - plan.load) + costs.gather * searchers


def build_seconds(costs: Costs, plan: Plan) -> dict[str, float]:
    """Seconds of each step; `embed` and `seal` run on all their hosts or processes, `train` on one core."""
    sample = min(plan.rows, max(64 * plan.nlist, 65_536))
    return {
        "embed": plan.rows / (plan.images_per_second * plan.embedders),
        "train": ITERATIONS * costs.assign * sample * plan.nlist * plan.dim,
        "seal": plan.rows * (costs.row + costs.assign * plan.nlist * plan.dim) / plan.writers,
    }


def sizes(costs: Costs, plan: Plan) -> dict[str, float]:
    """Bytes: of all shards, of what a scan reads, and of the catalog."""
    return {
        "shards": plan.rows * (2 * plan.dim + costs.shard_bytes),
        "codes": plan.rows * (costs.code_bytes + 8),
        "catalog": plan.rows * costs.catalog_bytes,
    }


def predict(costs: Costs, plan: Plan) -> dict[str, Any]:
    """Everything of a plan, for tables."""
    return {
        "shards": plan.shards,
        "p50": query_seconds(costs, plan),
        "p99": query_seconds(costs, plan, 0.99),
        "core_seconds": work(costs, plan, plan.shards, plan.rows),
        "build": build_seconds(costs, plan),
        "bytes": sizes(costs, plan),
    }
