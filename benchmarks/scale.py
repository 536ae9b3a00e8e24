"""How far does it go? Costs measured on this machine, a model checked against runs, tables of what is larger.

    python benchmarks/scale.py measure --cache /tmp/scale --save benchmarks/scale.json     # ten minutes, idle machine
    python benchmarks/scale.py validate --cache /tmp/scale                # 1 to 16 shards, 1 to 4 searchers
    python benchmarks/scale.py tables                                     # docs/scale.md has them
    python benchmarks/scale.py tables --rows 300000000 --dim 512 --images-per-second 400

`measure` builds indexes of one shard (open_index.py's rows), times single queries over a grid of nprobe and rerank in
a process on one processor, and fits the model's costs to the medians, each residual relative to what was measured.
`validate` builds a collection of another size in 1, 2, 4, 8 and 16 shards, none of which was fitted. It asks them by
the index's own search in one process, and by 1, 2 and 4 searchers: processes that hold a share of the shards each and
answer over pipes. It prints the prediction beside the measurement. A host's images/s are not measured here:
runtimes.py and gpu.py do that.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from open_index import BLOCK, Collection, build
from scale_model import ITERATIONS, Costs, Plan, predict, query_seconds, work

from brivl_search.index import IndexReader
from brivl_search.index.ivfpq import faiss_module, training_rows
from brivl_search.index.search import Searched, search
from brivl_search.index.types import Tuning

COSTS = Path(__file__).with_name("scale.json")
FITTED, UNSEEN = (50_000, 200_000, 800_000), 400_000
GRID = [(nprobe, rerank) for nprobe in (2, 8, 32, 128, 512) for rerank in (50, 200, 800)]
SPLITS, SEARCHERS = (1, 2, 4, 8, 16), (1, 2, 4)
QUERIES, K, DIM = 60, 10, 256


# -- indexes -------------------------------------------------------------------------------------------------------


def index_of(cache: Path, rows: int, shard_rows: int = 0) -> Path:
    """An index of made rows, built unless it is there; `build.json` beside it says how long that took."""
    directory = cache / f"rows-{rows}-{shard_rows or rows}"
    if not directory.with_suffix(".json").exists():
        seconds = build(directory, rows, DIM, shard_rows=shard_rows or None)
        directory.with_suffix(".json").write_text(json.dumps(seconds))
    return directory


def parts_of(reader: IndexReader) -> list[Searched]:
    return list(reader._parts["image"])


def queries_of(rows: int) -> np.ndarray:
    return Collection(rows, DIM).draw(QUERIES, seed=3).astype(np.float32)


def median_of(run: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of single queries, seconds; each is asked three times, the best counts."""
    for query in queries[:10]:
        run(query[None])
    times = []
    for query in queries:
        tries = []
        for _ in range(3):
            start = time.perf_counter()
            run(query[None])
            tries.append(time.perf_counter() - start)
        times.append(min(tries))
    return statistics.median(times), float(np.quantile(times, 0.99))


# -- measuring -----------------------------------------------------------------------------------------------------


def features(rows: int, nlist: int, nprobe: int, rerank: int, code_bytes: float) -> list[float]:
    return [1.0, nlist * DIM, nprobe, rows * nprobe / nlist * code_bytes, rerank * DIM]


def fit(cases: list[list[float]], seconds: list[float]) -> np.ndarray:
    """Costs ≥ 0 of least squared relative error: one that comes out negative is left out, the rest fitted again."""
    matrix = np.array(cases) / np.array(seconds)[:, None]
    kept = list(range(matrix.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(matrix[:, kept], np.ones(len(seconds)), rcond=None)
        if (found >= 0).all():
            costs = np.zeros(matrix.shape[1])
            costs[kept] = found
            return costs
        kept.pop(int(np.argmin(found)))


def measure(cache: Path) -> dict[str, Any]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    faiss_module().omp_set_num_threads(1)
    cases, seconds, tails = [], [], []
    row = assign = code_bytes = shard_bytes = catalog_bytes = 0.0  # those of the largest count
    for rows in FITTED:
        directory = index_of(cache, rows)
        reader = IndexReader.open(directory)
        (part,) = parts_of(reader)
        assert part.shard.index.ntotal == rows
        info = part.shard.info
        code_bytes = float(info.m)
        queries = queries_of(rows)
        for nprobe, rerank in GRID:
            if nprobe > info.nlist:
                continue
            tuning = Tuning(nprobe, rerank)
            one, most = median_of(lambda query, of=([part], tuning): search(of[0], query, K, of[1]), queries)  # type: ignore[misc]
            cases.append(features(rows, info.nlist, nprobe, rerank, code_bytes))
            seconds.append(one)
            tails.append(most / one)
        seconds_of_build = json.loads(directory.with_suffix(".json").read_text())
        assign = assigning(part, rows)
        sample = training_rows(rows, info.nlist)
        left = seconds_of_build - rows * drawing() - assign * (rows + ITERATIONS * sample) * info.nlist * DIM
        row = max(left, 0.1 * seconds_of_build) / rows
        shard_bytes = part.shard.path.stat().st_size / rows - 2 * DIM
        catalog_bytes = (directory / "catalog.lmdb").stat().st_size / rows
        reader.close()
    shard, coarse, visit, scan, fetch = fit(cases, seconds).tolist()
    costs = Costs(
        shard, coarse, visit, scan, fetch, statistics.median(tails), 0.0, row, assign, code_bytes, shard_bytes,
        catalog_bytes,
    )  # fmt: skip
    errors = [
        float(np.dot(case, (shard, coarse, visit, scan, fetch)) / true - 1)
        for case, true in zip(cases, seconds, strict=True)
    ]
    return {"costs": asdict(replace(costs, gather=gather_cost(cache))), "fitted": spread(errors)}


def assigning(part: Searched, rows: int) -> float:
    """Seconds that finding a row's list takes in a batch, for each centroid and dimension."""
    block = Collection(rows, DIM).draw(BLOCK, seed=4).astype(np.float32)
    quantizer = faiss_module().downcast_index(part.shard.index.quantizer)
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        quantizer.search(block, 1)
        spent.append(time.perf_counter() - start)
    return min(spent) / (BLOCK * part.shard.info.nlist * DIM)


def drawing() -> float:
    """Seconds that making a row takes, which `build` does beside storing it."""
    collection = Collection(FITTED[1], DIM)
    start = time.perf_counter()
    collection.draw(BLOCK, seed=1)
    return (time.perf_counter() - start) / BLOCK


def spread(errors: list[float]) -> dict[str, float]:
    """Of the errors' absolute values, as shares."""
    absolute = np.abs(errors)
    return {"median": round(float(np.median(absolute)), 3), "largest": round(float(absolute.max()), 3)}


# -- searchers -----------------------------------------------------------------------------------------------------


def searcher(directory: Path, numbers: list[int], pipe: Connection) -> None:
    """A process that holds some shards and answers (queries, tuning) with scores and places until it is told None."""
    faiss_module().omp_set_num_threads(1)
    parts = parts_of(IndexReader.open(directory))
    mine = [parts[number] for number in numbers]
    pipe.send(True)
    while (asked := pipe.recv()) is not None:
        found = search(mine, asked[0], K, asked[1])
        pipe.send((found.scores, found.rows))


class Searchers:
    """Processes among which an index's shards are dealt, as whole as possible."""

    def __init__(self, directory: Path, shards: int, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for number in range(count):
            ours, theirs = context.Pipe()
            mine = list(range(number, shards, count))
            process = context.Process(target=searcher, args=(directory, mine, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def search(self, query: np.ndarray, tuning: Tuning) -> np.ndarray:
        """The K best scores of all shards."""
        for pipe in self.pipes:
            pipe.send((query, tuning))
        answers = [pipe.recv() for pipe in self.pipes]
        scores = np.hstack([scores for scores, _ in answers])
        best: np.ndarray = -np.sort(-scores, axis=1)[:, :K]
        return best

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)


def gather_cost(cache: Path) -> float:
    """Seconds that asking one more searcher adds: of searchers that have next to nothing to do."""
    directory = index_of(cache, FITTED[0], FITTED[0] // 4)
    times = []
    for count in (1, 4):
        searchers = Searchers(directory, 4, count)
        queries = queries_of(FITTED[0])
        times.append(median_of(lambda query, here=searchers: here.search(query, Tuning(1, 10)), queries)[0])  # type: ignore[misc]
        searchers.close()
    return max(0.0, (times[1] - times[0]) / 3) or times[0] / 4


def validate(cache: Path, costs: Costs) -> Iterator[dict[str, Any]]:
    """Measured and predicted medians of shapes that were not fitted."""
    tuning = Tuning(64, 200)
    cores = len(os.sched_getaffinity(0))
    queries = queries_of(UNSEEN)
    for split in SPLITS:
        directory = index_of(cache, UNSEEN, -(-UNSEEN // split))
        reader = IndexReader.open(directory)
        parts = parts_of(reader)
        nlist = parts[0].shard.info.nlist
        shape = Plan(UNSEEN, DIM, nlist, tuning.nprobe, tuning.rerank, -(-UNSEEN // split))
        faiss_module().omp_set_num_threads(1)
        true, _ = median_of(lambda query, here=parts: search(here, query, K, tuning), queries)  # type: ignore[misc]
        yield {"shards": split, "searchers": 0, "measured": true, "predicted": work(costs, shape, split, UNSEEN)}
        for count in SEARCHERS:
            if count <= split:
                searchers = Searchers(directory, split, count)
                true, _ = median_of(lambda query, here=searchers: here.search(query, tuning), queries)  # type: ignore[misc]
                searchers.close()
                here = replace(shape, searchers=count, cores=cores)
                yield {"shards": split, "searchers": count, "measured": true, "predicted": query_seconds(costs, here)}
        reader.close()


# -- tables --------------------------------------------------------------------------------------------------------


def table(costs: Costs, plans: list[Plan]) -> str:
    """Markdown, a row a plan."""
    lines = [
        "| pictures | dim | lists | nprobe | shards | searchers | embed, days | train | seal | shards | codes "
        "| catalog | core-s a query | p50 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for plan in plans:
        it = predict(costs, plan)
        steps, size = it["build"], it["bytes"]
        cells = [
            f"{plan.rows:,}", plan.dim, f"{plan.nlist:,}", plan.nprobe, it["shards"], plan.searchers,
            f"{steps['embed'] / 86_400:.1f}", span(steps["train"]), span(steps["seal"]),
            bytes_of(size["shards"]), bytes_of(size["codes"]), bytes_of(size["catalog"]),
            f"{it['core_seconds']:.3g}", span(it["p50"]), span(it["p99"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def span(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1e3:.3g} ms"


def bytes_of(count: float) -> str:
    for size, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count / 1e6:.3g} MB"


def plans_of(rows: list[int], dim: int, images_per_second: float) -> list[Plan]:
    """Each size twice: as the index is made today (8,192 lists at most), and with 262,144 lists."""
    plans = []
    for count in rows:
        searchers = max(1, round(count / 50_000_000))
        embedders = max(1, round(count / (images_per_second * 7 * 86_400)))
        for nlist, nprobe in ((8_192, 64), (262_144, 256)):
            plans.append(
                Plan(
                    count, dim, nlist, nprobe, 200, searchers=searchers, embedders=embedders,
                    images_per_second=images_per_second, writers=searchers * 2, load=0.3,
                )
            )  # fmt: skip
    return plans


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("measure", "validate", "tables"):
        command = commands.add_parser(name)
        command.add_argument("--costs", type=Path, default=COSTS)
        if name != "tables":
            command.add_argument("--cache", type=Path, required=True)
        if name == "measure":
            command.add_argument("--save", type=Path)
        if name == "tables":
            command.add_argument("--rows", type=int, nargs="*", default=[10**8, 10**9, 10**10])
            command.add_argument("--dim", type=int, default=DIM)
            command.add_argument("--images-per-second", type=float, default=80.0, help="of a host [%(default)s]")
    args = parser.parse_args()
    if args.command == "measure":
        args.cache.mkdir(parents=True, exist_ok=True)
        text = json.dumps(measure(args.cache), indent=2)
        print(text)
        if args.save:
            args.save.write_text(text + "\n")
        return 0
    costs = Costs(**json.loads(args.costs.read_text())["costs"])
    if args.command == "tables":
        print(table(costs, plans_of(args.rows, args.dim, args.images_per_second)))
        return 0
    errors = []
    for case in validate(args.cache, costs):
        errors.append(case["predicted"] / case["measured"] - 1)
        kind = f"{case['searchers']} searchers" if case["searchers"] else "one process"
        print(f"{case['shards']:3} shards, {kind:12} measured {1e3 * case['measured']:7.2f} ms   predicted "
              f"{1e3 * case['predicted']:7.2f} ms   {errors[-1]:+.0%}", flush=True)  # fmt: skip
    print(f"error: {spread(errors)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
