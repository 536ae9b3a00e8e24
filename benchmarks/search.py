"""Searching for ten of a million: ours against the same index in RAM, and against the peers, side by side in one run.

    python benchmarks/search.py --cache /tmp/search-cache --peers-python /tmp/peers-venv/bin/python --plot
    python benchmarks/search.py --quick                                         # 20,000 rows
    python benchmarks/search.py --cache /tmp/search-cache --rows 100000,300000,1000000,3000000    # how cost grows
    python benchmarks/search.py --cache /tmp/search-cache --build-only          # so that the timed run takes minutes

Peers are optional and live in an environment of their own, which needs no brivl-search:

    python -m venv /tmp/peers-venv
    /tmp/peers-venv/bin/pip install faiss-cpu==1.15.1 hnswlib usearch lancedb milvus-lite pymilvus

The rows are `Collection` of open_index.py: unit vectors of 256 floats in clusters of about 250. The 1,000 queries are
held out from those ours was tuned with; truth is the exact scan of the float32 rows, and recall@10 the overlap of row
numbers (a row that ties with the tenth counts as missed, and so does one that float16 has put behind it). HNSW: M 16,
efConstruction 100 (tens of minutes on two cores, then kept in --cache).

Every engine is swept on one processor over its search parameters; its headline is the fastest setting that was measured
to reach 0.99. With that setting it is then timed in fresh processes, pinned to one processor and free on all, engine
after engine, --rounds times; medians count. Memory is what RssAnon and RssFile of the process (and its children) have
grown by since its imports, after the index was opened and --singles single queries answered (ours: once the thread that
brings the map into memory is done, as all others have loaded what they serve by then): pages of a mapped file
count, the page cache behind an engine that reads its files (lancedb, milvus-lite) does not.

Bars, at a million rows (or the most below): recall@10 0.99; single queries p50 2 ms and p99 6 ms; queries/s 0.95 of the
same search over the same bytes copied into RAM, in turns in one process; more queries/s for each byte resident than any
peer, and more queries/s than any disk-resident one; open 20 ms. They are set on `ours`, the default; `ours-pq8` is the
other codec, 8 bits. Row `faiss-ivfpq` is FAISS's own way of doing what ours
does (IVF-PQ and IndexRefine over float16 in RAM): not a peer but the measure of what lies around FAISS.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from open_index import BLOCK, Collection, build, in_ram, note, plain_copy
from search_peers import ENGINES, K
from search_timing import BATCH, TARGET

from brivl_search.index import IndexReader
from brivl_search.index.ivfpq import faiss_module
from brivl_search.index.types import Codec

P50_MS, P99_MS, RATIO, OPEN_MS = 2.0, 6.0, 0.95, 20.0
DIM, QUERIES = 256, 1_024
MAIN = 1_000_000
CODECS: dict[str, Codec] = {"ours": "fastscan", "ours-pq8": "pq8"}
REFERENCES = (*CODECS, "faiss-ivfpq")
THREADS = ("one", "all")


# -- the collection ------------------------------------------------------------------------------------------------


def prepare(folder: Path, rows: int, keep_rows: bool) -> None:
    """Write the queries, the truth, and (for the peers) the rows; whatever is there already is used."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "truth.npy").exists() or (keep_rows and not (folder / "vectors.npy").exists()):
        collection = Collection(rows, DIM)
        queries = collection.draw(QUERIES, seed=2).astype(np.float32)
        np.save(folder / "queries.npy", queries)
        temporary = folder / "tmp-vectors.npy"
        kept = np.lib.format.open_memmap(temporary, "w+", np.float32, (rows, DIM)) if keep_rows else None
        scores, best = np.full((QUERIES, 0), 0, np.float32), np.full((QUERIES, 0), 0, np.int64)
        for at in range(0, rows, BLOCK):
            block = collection.draw(min(BLOCK, rows - at), seed=1000 + at)  # as build_ours draws them
            if kept is not None:
                kept[at : at + len(block)] = block
            index = faiss_module().IndexFlatIP(DIM)
            index.add(block)
            found, numbers = index.search(queries, K)
            scores, best = np.hstack([scores, found]), np.hstack([best, numbers + at])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
            scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
        if kept is not None:
            kept.flush()
            temporary.replace(folder / "vectors.npy")
        np.save(folder / "truth.npy", best)
        note(f"{rows:,} rows: queries and truth written")


def build_ours(folder: Path, entry: str, rows: int, codec: Codec) -> None:
    """Stage and commit the rows, and tune with queries that are not those of the measurement."""
    temporary = folder / f"tmp-{entry}"
    shutil.rmtree(temporary, ignore_errors=True)
    seconds = build(temporary, rows, DIM, codec)
    temporary.replace(folder / entry)
    remember(folder, entry, seconds)


def built(folder: Path, name: str, args: argparse.Namespace) -> str:
    """Build a peer unless it is there. Empty if it can be searched, or the reason why not."""
    if not ENGINES[name].ours:
        tried = run("load", name, folder, args, check=False)
        if tried is None:
            return "not installed"
    entry = ENGINES[name].entry
    if ENGINES[name].ours:
        entry = entry or "ours"
        if not (folder / entry).exists():
            build_ours(folder, entry, int(folder.name.removeprefix("search-").split("x")[0]), CODECS[entry])
    elif entry and not (folder / entry).exists():
        note(f"building {name}")
        answer = run("build", name, folder, args, check=False)
        if answer is None:
            for leaving in folder.glob(entry + "*"):
                shutil.rmtree(leaving) if leaving.is_dir() else leaving.unlink()
            return "could not be built"
        remember(folder, name, answer["build_s"])
    return ""


def remember(folder: Path, name: str, seconds: float) -> None:
    path = folder / "built.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: {"seconds": round(seconds), "load": os.getloadavg()[0]}}, indent=1))


def size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_blocks * 512 for file in files)


def warm(path: Path) -> None:
    """Read it, so that it is in the page cache."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                while opened.read(1 << 24):
                    pass


def run(role: str, name: str, folder: Path, args: argparse.Namespace, *more: str, check: bool = True) -> Any:
    """The answer of a fresh process, None if it failed and need not succeed."""
    python = sys.executable if ENGINES[name].ours else args.peers_python
    line = [python, str(Path(__file__).with_name("search_timing.py")), role, name, str(folder), *more]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=None if check else subprocess.PIPE, text=True)
    if done.returncode or not done.stdout.strip():
        if check:
            raise SystemExit(f"{name}: {role} failed with status {done.returncode}")
        note(f"{name}: {role} failed: {(done.stderr.strip().splitlines() or ['no word'])[-1][:200]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


# -- in place against RAM, in one process --------------------------------------------------------------------------


def against_ram(directory: Path, setting: dict[str, int], cpus: int) -> dict[str, Any]:
    """Queries/s of `IndexReader.search` over the map and over copies of the same bytes in RAM, in turns."""
    if cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])
    readers = {name: IndexReader.open(directory) for name in ("map", "ram")}
    copies = []
    for part in readers["ram"]._parts["image"]:
        index = in_ram(part.shard)
        shard = SimpleNamespace(index=index, vectors=plain_copy(part.shard.vectors), info=part.shard.info)
        copies.append(replace(part, shard=shard))  # type: ignore[arg-type]  # a stand-in that lies in RAM
    readers["ram"]._parts["image"] = copies
    queries = np.load(directory.with_name("queries.npy"))

    def batch(reader: Any) -> Any:
        return [reader.search("image", queries[at : at + BATCH], K, **setting) for at in range(0, QUERIES, BATCH)]

    def single(reader: Any) -> Any:
        return [reader.search("image", one[None], K, **setting) for one in queries[:400]]

    result: dict[str, Any] = {}
    for label, work in (("batch", batch), ("single", single)):
        for one, other in zip(work(readers["map"]), work(readers["ram"]), strict=True):
            assert np.array_equal(one.rows, other.rows)
        ratios = []
        for turn in range(11):
            seconds = {}
            for name in ("map", "ram") if turn % 2 else ("ram", "map"):
                start = time.perf_counter()
                work(readers[name])
                seconds[name] = time.perf_counter() - start
            ratios.append(seconds["ram"] / seconds["map"])
        result[label] = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return result


# -- the whole -----------------------------------------------------------------------------------------------------


def measure(rows: int, engines: list[str], args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    folder = cache / f"search-{rows}x{DIM}"
    prepare(folder, rows, any(not ENGINES[name].ours for name in engines))
    missing = {name: why for name in engines if (why := built(folder, name, args))}
    engines = [name for name in engines if name not in missing]
    if args.build_only:
        return {"rows": rows, "missing": missing, "built": json.loads((folder / "built.json").read_text())}
    table: dict[str, Any] = {}
    for name in engines:
        warm(folder / (ENGINES[name].entry or ("ours" if ENGINES[name].ours else "vectors.npy")))
        note(f"{rows:,} rows: sweeping {name}")
        swept = run("sweep", name, folder, args, "--cpus", "1")
        table[name] = {"disk": ENGINES[name].disk, **swept, "rounds": {threads: [] for threads in THREADS}}
        kept = folder / ENGINES[name].entry if ENGINES[name].entry else None
        table[name]["disk_bytes_per_row"] = size(kept) / rows if kept else None
    for number in range(args.rounds):
        for threads, cpus in zip(THREADS, ("1", "0"), strict=True):
            for name in engines:
                note(f"{rows:,} rows: round {number + 1}, {threads} processor(s), {name}")
                setting = json.dumps(table[name]["best"]["setting"])
                more = [
                    "--cpus",
                    cpus,
                    "--setting",
                    setting,
                    "--singles",
                    str(args.singles if name != "faiss-exact" else 100),
                ]
                table[name]["rounds"][threads].append(run("time", name, folder, args, *more))
    for one in table.values():
        for threads in THREADS:
            rounds = one["rounds"][threads]
            one[threads] = {what: statistics.median(each[what] for each in rounds) for what in rounds[0]}
        one["open_ms"] = statistics.median(each["open_ms"] for t in THREADS for each in one["rounds"][t])
        one["bytes_per_row"] = (one["one"]["anon"] + one["one"]["file"]) / rows
    result = {"rows": rows, "missing": missing, "engines": table}
    for name in (name for name in CODECS if name in table):
        setting = json.dumps(table[name]["best"]["setting"])
        for threads, cpus in zip(THREADS, ("1", "0"), strict=True):
            line = [sys.executable, __file__, "--against-ram", str(folder / name), "--setting", setting, "--cpus", cpus]
            answer = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
            table[name][f"ram_{threads}"] = json.loads(answer)
    return result


def judge(result: dict[str, Any]) -> dict[str, bool]:
    """The bars. A peer is compared where it reached the recall; one that did not has lost."""
    table, ours = result["engines"], result["engines"]["ours"]
    ratios = [ours[f"ram_{threads}"][what]["ratio"] for threads in THREADS for what in ("single", "batch")]
    peers = [one for name, one in table.items() if name not in REFERENCES and one["best"]["recall"] >= TARGET]

    def beats(other: dict[str, Any], per_byte: bool) -> bool:
        mine, its = (ours["bytes_per_row"], other["bytes_per_row"]) if per_byte else (1.0, 1.0)
        return all(
            ours[threads][what] / mine > other[threads][what] / its
            for threads in THREADS
            for what in ("single_qps", "batch_qps")
        )

    return {
        "recall": ours["best"]["recall"] >= TARGET,
        "p50": max(ours[threads]["p50_ms"] for threads in THREADS) <= P50_MS,
        "p99": max(ours[threads]["p99_ms"] for threads in THREADS) <= P99_MS,
        "ram": min(ratios) >= RATIO,
        "per_byte": all(beats(peer, True) for peer in peers),
        "disk": all(beats(peer, False) for peer in peers if peer["disk"]),
        "open": ours["open_ms"] <= OPEN_MS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="sizes, comma-separated [1000000]")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, one round")
    parser.add_argument("--cache", type=Path, help="keep rows and indexes under this folder, and use what is there")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers [this one]")
    parser.add_argument("--engines", help=f"only these, comma-separated, of {','.join(ENGINES)}")
    parser.add_argument("--peers", action="store_true", help="peers at every size, not only at the main one")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each engine and thread count [3]")
    parser.add_argument("--singles", type=int, default=1_000, help="single queries timed in each process [1000]")
    parser.add_argument("--build-only", action="store_true", help="build what is missing in --cache and stop")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of the tables")
    default_plot = Path(__file__).with_suffix(".png")
    parser.add_argument("--plot", type=Path, nargs="?", const=default_plot, help="write a PNG [benchmarks/search.png]")
    parser.add_argument("--against-ram", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--cpus", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.against_ram:
        print(json.dumps(against_ram(args.against_ram, args.setting, args.cpus)))
        return 0
    if args.quick:
        args.rounds = 1
    sizes = [int(one) for one in (args.rows or ("20000" if args.quick else str(MAIN))).split(",")]
    main_size = max([one for one in sizes if one <= MAIN], default=min(sizes))
    chosen = args.engines.split(",") if args.engines else list(ENGINES)
    results = []
    with tempfile.TemporaryDirectory(prefix="brivl-bench-") as scratch:
        for rows in sizes:
            engines = [n for n in chosen if n == "ours" or args.peers or rows == main_size]
            results.append(measure(rows, engines, args, args.cache or Path(scratch)))
    if args.build_only:
        print(json.dumps(results, indent=1))
        return 0
    import search_report

    main_result = next(one for one in results if one["rows"] == main_size)
    whole: dict[str, Any] = {
        "dim": DIM,
        "queries": QUERIES,
        "batch": BATCH,
        "cpus": len(os.sched_getaffinity(0)),
        "load_at_end": os.getloadavg()[0],
        "main": main_size,
        "sizes": results,
        "met": judge(main_result) if "ours" in main_result["engines"] else {},
    }
    if args.plot:
        search_report.plot(whole, args.plot)
    print(json.dumps(whole, indent=1) if args.json else search_report.tables(whole))
    return 0 if all(whole["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
