"""One engine in a process of its own, for `benchmarks/search.py`: load, build, sweep or time it, and print JSON.

For peers it runs under the interpreter given by --peers-python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from search_peers import ENGINES, Engine, K, Ours, Setting

BATCH, TARGET = 512, 0.99


def resident() -> dict[str, int]:
    """Bytes of anonymous and of file-backed pages of this process and its children."""
    total = {"anon": 0, "file": 0}
    for process in [os.getpid(), *children(os.getpid())]:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssFile:", "RssShmem:")):
                total["anon" if line.startswith("RssAnon") else "file"] += int(line.split()[1]) * 1024
    return total


def children(process: int) -> Iterator[int]:
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from children(int(child))


def rate(engine: Engine, queries: np.ndarray, setting: Setting, seconds: float) -> tuple[float, np.ndarray]:
    """Queries/s in batches, the median of as many passes over all queries as fit; and what the first pass found."""
    times: list[float] = []
    first: list[np.ndarray] = []
    engine.search(queries[:64], setting)
    while not times or (sum(times) < seconds and len(times) < 25):
        start = time.perf_counter()
        found = [engine.search(queries[at : at + BATCH], setting) for at in range(0, len(queries), BATCH)]
        times.append(time.perf_counter() - start)
        first = first or found
    return len(queries) / statistics.median(times), np.concatenate(first)


def recall(found: Iterable[np.ndarray], truth: np.ndarray) -> float:
    """Share of the true ten that were found, by row number: a row that ties with the tenth counts as missed."""
    hits = [len(set(one.tolist()) & set(best.tolist())) for one, best in zip(found, truth, strict=True)]
    return float(np.mean(hits)) / K


def sweep(engine: Engine, folder: Path) -> dict[str, Any]:
    """Recall and queries/s of every setting; `best` is the fastest that was measured to reach the target."""
    engine.open(folder)
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    points: list[dict[str, Any]] = []
    fastest = 0.0
    for run in engine.curve():
        before = -1.0
        for setting in run:
            qps, found = rate(engine, queries, setting, 1.0)
            reached = recall(found, truth)
            points.append({"setting": setting, "recall": reached, "qps": qps})
            fastest = max(fastest, qps if reached >= TARGET else 0.0)
            if reached >= 0.9985 or (reached > 0.9 and reached - before < 0.0003) or qps < fastest / 4:
                break
            before = reached
    good = [point for point in points if point["recall"] >= TARGET]
    best = max(good, key=lambda point: point["qps"]) if good else max(points, key=lambda point: point["recall"])
    return {"points": points, "best": best, "tuned": points[0] if isinstance(engine, Ours) else None}


def timed(engine: Engine, folder: Path, setting: Setting, singles: int) -> dict[str, Any]:
    """Opening, then single queries, then memory, then batches."""
    queries = np.load(folder / "queries.npy")
    before = resident()
    start = time.perf_counter()
    engine.open(folder)
    opened = time.perf_counter()
    engine.search(queries[:1], setting)
    first = time.perf_counter()
    engine.settle()
    settled = time.perf_counter()
    for at in range(1, 17):
        engine.search(queries[-at:][:1], setting)
    times = []
    for at in range(singles):
        one = queries[at % len(queries)][None]
        clock = time.perf_counter()
        engine.search(one, setting)
        times.append(time.perf_counter() - clock)
    after = resident()
    low, high = np.percentile(times, [50, 99])
    return {
        "open_ms": 1e3 * (opened - start),
        "first_query_ms": 1e3 * (first - opened),
        "settled_ms": 1e3 * (settled - start),
        "p50_ms": 1e3 * float(low),
        "p99_ms": 1e3 * float(high),
        "single_qps": len(times) / sum(times),
        "anon": after["anon"] - before["anon"],
        "file": after["file"] - before["file"],
        "imports": sum(before.values()),
        "batch_qps": rate(engine, queries, setting, 2.0)[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["load", "build", "sweep", "time"])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpus", type=int, default=0)
    parser.add_argument("--setting", type=json.loads, default={})
    parser.add_argument("--singles", type=int, default=1000)
    args = parser.parse_args()
    if args.cpus:  # before anything starts threads: every engine then takes as many as there are processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cpus :])
    engine = ENGINES[args.engine]()
    engine.load()
    answer: dict[str, Any] = {}
    if args.role == "build":
        start = time.perf_counter()
        engine.build(args.folder, np.load(args.folder / "vectors.npy", mmap_mode="r"))
        answer = {"build_s": time.perf_counter() - start}
    elif args.role == "sweep":
        answer = sweep(engine, args.folder)
    elif args.role == "time":
        answer = timed(engine, args.folder, args.setting, args.singles)
    print(json.dumps(answer), flush=True)
    os._exit(0)  # some engines leave threads behind that do not end


if __name__ == "__main__":
    sys.exit(main())
