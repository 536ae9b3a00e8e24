"""Searching where the bytes lie: what does it cost to open an index, and what does the map cost against RAM?

    python benchmarks/open_index.py                               # 500,000 rows of 256 dimensions, built first
    python benchmarks/open_index.py --cache /tmp/indexes --json   # keeps the index, or uses the one kept there

Codes are fastscan, the default, or what --codec says. Every measurement runs in fresh processes, after their imports
(faiss, lmdb, numpy and our own), with the index in the page cache:

    ready    IndexReader.open, the first record, and the FAISS index at hand; bar: 20 ms
    memory   growth of RssAnon by opening and 100 searches, over the bytes of the shard; bar: below 1/10
    speed    queries/s of the FAISS index in the LMDB map over the same bytes deserialised into RAM, same nprobe and
             queries, in turns, on one thread and on the default number; bar: 0.9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lmdb  # noqa: F401  (imported before the clock starts)
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from brivl_search.index import Codec, IndexReader, IndexWriter, Item  # noqa: E402
from brivl_search.index.ivfpq import candidates, faiss_module, view  # noqa: E402

READY_MS, MEMORY, SPEED = 20.0, 0.1, 0.9
ROWS_PER_CLUSTER, FACTORS, BLOCK = 250, 48, 10_000
QUERIES = 512


class Collection:
    """Unit vectors in clusters, spread along few directions inside each, as embeddings of photos are."""

    def __init__(self, rows: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        self.dim = dim
        self.centres = rng.standard_normal((max(1, rows // ROWS_PER_CLUSTER), dim), dtype=np.float32) / np.sqrt(dim)
        scale = np.arange(1, FACTORS + 1, dtype=np.float32)[:, None] ** -0.5
        self.factors = rng.standard_normal((FACTORS, dim), dtype=np.float32) * scale / np.sqrt(dim * (scale**2).sum())

    def draw(self, count: int, seed: int) -> np.ndarray:
        """float32 (count, dim), unit length."""
        rng = np.random.default_rng(seed)
        inside = rng.standard_normal((count, FACTORS), dtype=np.float32) @ self.factors
        grain = rng.standard_normal((count, self.dim), dtype=np.float32) / np.sqrt(self.dim)
        vectors = self.centres[rng.integers(0, len(self.centres), count)] + 0.8 * inside + 0.3 * grain
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def build(directory: Path, rows: int, dim: int, codec: Codec = "fastscan", shard_rows: int | None = None) -> float:
    """Seconds for staging and committing `rows` rows with an IVF-PQ."""
    collection = Collection(rows, dim)
    start = time.perf_counter()
    with IndexWriter(
        directory,
        encoder_name="benchmark",
        fingerprint="0" * 64,
        dim=dim,
        index_type="ivfpq",
        shard_rows=shard_rows,
        codec=codec,
    ) as writer:
        for at in range(0, rows, BLOCK):
            keys = [f"/photos/{row:08}.jpg" for row in range(at, min(at + BLOCK, rows))]
            contents = [f"{row:064x}" for row in range(at, at + len(keys))]
            writer.stage_vectors("image", contents, collection.draw(len(keys), seed=1000 + at))
            for key, content in zip(keys, contents, strict=True):
                writer.put("image", Item(key, content, record={"path": key, "width": 500, "height": 375}))
        note(f"{rows:,} rows staged after {time.perf_counter() - start:.0f} s")
        queries = collection.draw(QUERIES, seed=1)
        writer.commit(tuning_queries={"image": queries}, progress=note)
    return time.perf_counter() - start


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- in fresh processes --------------------------------------------------------------------------------------------


def ready(directory: Path) -> dict[str, float]:
    faiss_module()
    query = test_queries(directory)[:1]
    start = time.perf_counter()
    reader = IndexReader.open(directory)
    opened = time.perf_counter()
    reader.record("image", 0, 0)
    recorded = time.perf_counter()
    assert reader._parts["image"][0].shard.index.ntotal
    done = time.perf_counter()
    reader.search("image", query, 10)
    searched = time.perf_counter()
    spans = {"open_ms": opened - start, "record_ms": recorded - opened, "faiss_ms": done - recorded}
    spans |= {"ready_ms": done - start, "first_query_ms": searched - done}
    return {name: 1e3 * seconds for name, seconds in spans.items()}


def memory(directory: Path) -> dict[str, float]:
    faiss_module()
    queries = test_queries(directory)[:100]
    before = anonymous_bytes()
    reader = IndexReader.open(directory)
    for query in queries:
        reader.search("image", query[None], 10)
    return {"grown_bytes": anonymous_bytes() - before, "shard_bytes": reader.info.image.bytes}


def in_ram(shard: Any) -> Any:
    """The FAISS index of a shard over copies of its bytes, in memory such as FAISS takes for its own."""
    return view(*(plain_copy(shard._mapped(key)) for key in (b"ivfpq", b"lists") if key.decode() in shard.info.places))


def plain_copy(array: Any) -> Any:
    """A copy in malloc's memory. NumPy would ask for huge pages, which FAISS does not and a file's map cannot have."""
    copy = np.frombuffer(bytearray(array.nbytes), dtype=array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def speed(directory: Path) -> dict[str, Any]:
    faiss = faiss_module()
    reader = IndexReader.open(directory)
    queries = test_queries(directory)
    tuning = reader.info.image.tuning
    assert tuning is not None
    shard = reader._parts["image"][0].shard
    indexes = {"map": shard.index, "ram": in_ram(shard)}
    count = min(tuning.rerank, reader.count("image"))
    found = {name: candidates(index, queries, count, tuning.nprobe) for name, index in indexes.items()}
    assert np.array_equal(found["map"], found["ram"])
    result: dict[str, Any] = {"nprobe": tuning.nprobe, "rerank": tuning.rerank}
    threads = faiss.omp_get_max_threads()
    for label, number in (("one_thread", 1), ("default_threads", threads)):
        faiss.omp_set_num_threads(number)
        seconds: dict[str, list[float]] = {"map": [], "ram": []}
        for turn in range(11):
            for name in ("map", "ram") if turn % 2 else ("ram", "map"):
                start = time.perf_counter()
                candidates(indexes[name], queries, count, tuning.nprobe)
                seconds[name].append(time.perf_counter() - start)
        ratios = [ram / mapped for mapped, ram in zip(seconds["map"], seconds["ram"], strict=True)]
        rates = {name: len(queries) / statistics.median(times) for name, times in seconds.items()}
        result[label] = {**rates, "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        result[label]["threads"] = number
    del indexes["ram"]
    start = time.perf_counter()
    exact = reader.search("image", queries, 10, exact=True)
    middle = time.perf_counter()
    tuned = reader.search("image", queries, 10)
    end = time.perf_counter()
    # Rows that tie with the tenth count as found.
    good = tuned.scores >= exact.scores[:, -1:] - 1e-6
    result["recall_at_10"] = float(good.mean())
    result["exact_queries_per_second"] = len(queries) / (middle - start)
    result["tuned_queries_per_second"] = len(queries) / (end - middle)
    return result


def test_queries(directory: Path) -> np.ndarray:
    """Read, not drawn: memory freed by drawing them would hide what opening takes."""
    queries: np.ndarray = np.load(directory.with_name(directory.name + ".queries.npy"))
    return queries


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon")


def fresh(what: str, directory: Path) -> dict[str, Any]:
    line = [sys.executable, __file__, "--only", what, "--cache", str(directory)]
    answer: dict[str, Any] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return answer


# -- the whole -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000, help="[%(default)s]")
    parser.add_argument("--dim", type=int, default=256, help="[%(default)s]")
    parser.add_argument("--codec", choices=["fastscan", "pq8"], default="fastscan", help="[%(default)s]")
    parser.add_argument("--cache", type=Path, help="keep the index under this folder, and use it if it is there")
    parser.add_argument("--processes", type=int, default=7, help="fresh processes that open the index [%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of the table")
    parser.add_argument("--only", choices=["ready", "memory", "speed"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps({"ready": ready, "memory": memory, "speed": speed}[args.only](args.cache)))
        return 0
    with tempfile.TemporaryDirectory(prefix="brivl-bench-") as scratch:
        directory = (args.cache or Path(scratch)) / f"clustered-{args.codec}-{args.rows}x{args.dim}"
        queries = directory.with_name(directory.name + ".queries.npy")
        if not queries.exists():
            note(f"built in {build(directory, args.rows, args.dim, args.codec):.0f} s")
            np.save(queries, Collection(args.rows, args.dim).draw(QUERIES, seed=2))
        result = measure(directory, args)
    print(json.dumps(result, indent=2) if args.json else table(result))
    return 0 if all(result["met"].values()) else 1


def measure(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    for file in sorted(directory.rglob("*")):  # into the page cache
        if file.is_file():
            file.read_bytes()
    opened = [fresh("ready", directory) for _ in range(args.processes)]
    median = {name: statistics.median(one[name] for one in opened) for name in opened[0]}
    grown, searched = fresh("memory", directory), fresh("speed", directory)
    share = grown["grown_bytes"] / grown["shard_bytes"]
    ratios = [searched["one_thread"]["ratio"], searched["default_threads"]["ratio"]]
    return {
        "rows": args.rows,
        "dim": args.dim,
        "cpus": len(os.sched_getaffinity(0)),
        "load_at_end": os.getloadavg()[0],
        **median,
        "ready_ms_highest": max(one["ready_ms"] for one in opened),
        **grown,
        "memory_share": share,
        **searched,
        "met": {"ready": median["ready_ms"] <= READY_MS, "memory": share < MEMORY, "speed": min(ratios) >= SPEED},
    }


def table(result: dict[str, Any]) -> str:
    def verdict(what: str) -> str:
        return "met" if result["met"][what] else "MISSED"

    mega = 1 << 20
    lines = [
        f"{result['rows']:,} rows x {result['dim']}, nprobe {result['nprobe']}, rerank {result['rerank']}, "
        f"{result['cpus']} CPUs\n",
        f"open + record + FAISS ready  {result['ready_ms']:8.2f} ms   highest {result['ready_ms_highest']:.2f}   "
        f"bar {READY_MS:g} ms: {verdict('ready')}",
        f"  then the first query       {result['first_query_ms']:8.2f} ms",
        f"RssAnon / shard bytes        {result['memory_share']:8.4f}   {result['grown_bytes'] / mega:.1f} of "
        f"{result['shard_bytes'] / mega:.1f} MB   bar below {MEMORY:g}: {verdict('memory')}",
    ]
    for it in (result["one_thread"], result["default_threads"]):
        ok = "met" if it["ratio"] >= SPEED else "MISSED"
        lines.append(
            f"map / RAM, {it['threads']:2} threads        {it['ratio']:8.3f}   "
            f"{it['lowest']:.3f} to {it['highest']:.3f}   {it['map']:,.0f} and {it['ram']:,.0f} queries/s"
            f"   bar {SPEED:g}: {ok}"
        )
    lines += [
        f"recall@10, tuned search      {result['recall_at_10']:8.4f}",
        f"tuned search, whole          {result['tuned_queries_per_second']:8,.0f} queries/s",
        f"exact scan                   {result['exact_queries_per_second']:8,.0f} queries/s",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
