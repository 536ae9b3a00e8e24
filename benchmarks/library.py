"""A person's own scale: importing vectors, filters from the shell, and a `sync` that finds nothing new.

    python benchmarks/library.py --rows 10000,30000,100000,300000
    python benchmarks/library.py --rows 10000 --against /path/to/another/checkout --json
    python benchmarks/library.py --served 1000000     # filters in a server

Records and vectors are made up (unit, of the bundled encoder's dimensions; 300 folders, sizes, times, four fields).
Every figure is of a whole process, `brivl-search …` from start to end, as a person runs it: the median of several, with
the peak of resident memory, mapped pages included. The files that `sync` looks at are there and empty but for their
first bytes. `--against` measures another version of brivl-search too, in turns with this one, on files of its own.
The exit code is 1 if a bar is missed: filters within 0.5 s of a query without any, at up to 300,000 rows; an import
within 3 times the vectors' bytes and 300 MB; a filter within one second in a server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DIM, BLOCK = 256, 8192
FILTERS: dict[str, list[str]] = {
    "no filter": [],
    "--under": ["--under", "{photos}/2003"],
    "--glob": ["--glob", "*7.jpg"],
    "--where": ["--where", "split=test", "--where", "year=2003"],
    "--after": ["--after", "2012", "--before", "2013-06"],
    "--min-size": ["--min-size", "2000x1000"],
}
FILTER_BAR, IMPORT_TIMES, IMPORT_MORE, SERVED_BAR = 0.5, 3, 300e6, 1.0
TREE = Path(__file__).resolve().parents[1]


def record(row: int) -> dict[str, Any]:
    """What an index keeps of a made-up photo; its path is relative."""
    body: dict[str, Any] = {
        "path": f"photos/{2000 + row % 25}/{row % 12:02}/IMG_{row:07}.jpg",
        "width": 1000 + row % 3000,
        "height": 800 + row % 2000,
        "content": hashlib.sha256(str(row).encode()).hexdigest(),
        "fields": {
            "split": ("train", "test", "val")[row % 3],
            "year": 2000 + row % 25,
            "camera": f"camera {row % 40}",
            "tags": ["a", f"t{row % 100}"],
        },
    }
    if row % 3 == 0:
        body["taken"] = f"{2000 + row % 25}-{1 + row % 12:02}-{1 + row % 28:02}T{row % 24:02}:{row // 7 % 60:02}:00"
    return body


def blocks(rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, float16 (n, dim)) of unit vectors in clusters of about 250."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, rows // 250), DIM), dtype=np.float32)
    for at in range(0, rows, BLOCK):
        count = min(BLOCK, rows - at)
        vectors = centres[rng.integers(0, len(centres), count)]
        vectors = vectors + 0.5 * rng.standard_normal((count, DIM), dtype=np.float32)
        yield at, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f2")


def write_inputs(folder: Path, rows: int) -> None:
    """vectors.npy and records.jsonl, and the files that the records name."""
    with (folder / "vectors.npy").open("wb") as vectors, (folder / "records.jsonl").open("w") as records:
        head = {"descr": "<f2", "fortran_order": False, "shape": (rows, DIM)}
        np.lib.format.write_array_header_1_0(vectors, head)
        for at, block in blocks(rows):
            vectors.write(block.tobytes())
            records.writelines(json.dumps(record(row)) + "\n" for row in range(at, at + len(block)))


def write_files(folder: Path, rows: int) -> None:
    for row in range(rows):
        path = folder / record(row)["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + row.to_bytes(4, "big"))


def scanned_index(folder: Path, rows: int) -> None:
    """An index as if the files had been scanned and embedded; run with the version that is measured."""
    from brivl_search.encoders.registry import load_encoder
    from brivl_search.index import IndexWriter, Item

    encoder = load_encoder("brivl-mini")
    root = str(folder / "photos")
    with IndexWriter(
        folder / "scanned", encoder_name=encoder.name, fingerprint=encoder.fingerprint, dim=DIM, index_type="exact"
    ) as writer:
        set_roots: Any = getattr(writer, "set_roots", None)
        if set_roots is not None:  # 0.2 and older
            set_roots([(root, root)])
        else:
            from brivl_search.index.sources import Source

            writer.set_sources([Source("folder", root, root)])
        for at, block in blocks(rows):
            bodies = [record(row) for row in range(at, at + len(block))]
            writer.stage_vectors("image", [body["content"] for body in bodies], block)
            for body in bodies:
                path = str(folder / body["path"])
                status, content = os.stat(path), body.pop("content")
                writer.put("image", Item(path, content, status.st_size, status.st_mtime_ns, {**body, "path": path}))
        writer.commit()


def measured(tree: Path, *command: str) -> tuple[float, float]:
    """Seconds and peak resident bytes of `python -m brivl_search …`, or of this script, with the package of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        # From the tree's own folder: `python -m` looks where it stands before it looks into PYTHONPATH.
        child = subprocess.Popen([sys.executable, *command], cwd=tree, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read().decode(errors='replace')[-2000:]}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def verb(tree: Path, *command: str) -> tuple[float, float]:
    return measured(tree, "-m", "brivl_search", *command)


def measure(trees: dict[str, Path], rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """Figures of each version: seconds of each verb, `import_peak` in bytes."""
    out: dict[str, dict[str, float]] = {name: {} for name in trees}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary).resolve() / name for name in trees}
        for name, tree in trees.items():
            folder = folders[name]
            folder.mkdir()
            write_inputs(folder, rows)
            files = "--vectors", f"{folder}/vectors.npy", "--records", f"{folder}/records.jsonl"
            seconds, peak = verb(tree, "import", *files, "-i", f"{folder}/imported", "--encoder", "brivl-mini", "-q")
            out[name] |= {"import": seconds, "import_peak": peak}
            tell(f"{name}, {rows:,} rows: import {seconds:.1f} s, peak {peak / 1e6:,.0f} MB")
            write_files(folder, rows)
            measured(tree, __file__, "--scanned", str(folder), "--rows", str(rows))
        ways = {
            label: ["query", "a dog on grass", "-i", "{folder}/imported", *options]
            for label, options in FILTERS.items()
        }
        ways["sync"] = ["sync", "-i", "{folder}/scanned", "-q"]
        for label, command in ways.items():
            times: dict[str, list[float]] = {name: [] for name in trees}
            for turn in range(rounds + 1):
                for name, tree in trees.items():
                    folder = folders[name]
                    line = [one.format(folder=folder, photos=folder / "photos") for one in command]
                    seconds, _ = verb(tree, *line)
                    if turn:  # the first brings the files into memory
                        times[name].append(seconds)
            for name in trees:
                out[name][label] = statistics.median(times[name])
            tell(f"{label}: " + ", ".join(f"{name} {out[name][label]:.2f} s" for name in trees))
    return out


def served(rows: int, rounds: int) -> dict[str, float]:
    """Seconds of a search over HTTP with each filter: the first of its kind, and "… again" the median of the next."""
    import httpx
    from serve import our_server

    out: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        asked: dict[str, dict[str, Any]] = {
            "no filter": {},
            "under": {"under": [str(folder / "photos" / "2003")]},
            "glob": {"glob": ["*7.jpg"]},
            "where": {"where": {"split": "test", "year": "2003"}},
            "after": {"after": "2012", "before": "2013-06"},
            "min_size": {"min_size": "2000x1000"},
        }
        write_inputs(folder, rows)
        files = "--vectors", f"{folder}/vectors.npy", "--records", f"{folder}/records.jsonl"
        verb(TREE, "import", *files, "-i", f"{folder}/imported", "--encoder", "brivl-mini", "-q")
        with our_server(folder / "imported") as (_, address), httpx.Client(timeout=60) as client:
            client.post(f"{address}/v1/search", json={"text": "snow"}).raise_for_status()
            for label, filters in asked.items():
                body = {"text": "a dog on grass", "filters": filters}
                times = []
                for _ in range(rounds + 1):
                    began = time.perf_counter()
                    answer = client.post(f"{address}/v1/search", json=body)
                    times.append(time.perf_counter() - began)
                    if answer.status_code != 200 or len(answer.json()["hits"]) != 10:
                        raise SystemExit(f"{label}: {answer.text[:500]}")
                out |= {label: times[0], f"{label} again": statistics.median(times[1:])}
                tell(f"{label}: {times[0]:.3f} s, again {out[f'{label} again']:.4f} s")
    return out


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def missed(rows: int, figures: dict[str, float]) -> list[str]:
    """The bars that this version misses."""
    found = []
    if rows <= 300_000:
        found += [
            f"{label} at {rows:,} rows: {figures[label] - figures['no filter']:.2f} s more than without"
            for label in FILTERS
            if figures[label] - figures["no filter"] > FILTER_BAR
        ]
    if figures["import_peak"] > (bar := IMPORT_TIMES * rows * DIM * 2 + IMPORT_MORE):
        found.append(f"import of {rows:,} rows: {figures['import_peak'] / 1e6:,.0f} MB, the bar is {bar / 1e6:,.0f} MB")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,30000,100000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="a checkout of another version, measured too")
    parser.add_argument("--served", type=int, metavar="ROWS", help="filters in a server of so many rows, and no more")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scanned", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scanned:
        scanned_index(args.scanned, int(args.rows))
        return 0
    if args.served:
        figures = served(args.served, args.rounds)
        print(json.dumps({"rows": args.served, **figures, "load": os.getloadavg()[0]}))
        return 1 if max(figures.values()) > SERVED_BAR else 0
    trees = {"now": TREE}
    if args.against:
        trees = {"before": args.against.resolve(), **trees}
    results = {int(rows): measure(trees, int(rows), args.rounds) for rows in args.rows.split(",")}
    problems = [line for rows, versions in results.items() for line in missed(rows, versions["now"])]
    if args.json:
        print(json.dumps({"results": results, "missed": problems, "load": os.getloadavg()[0]}))
        return 1 if problems else 0
    labels = ["import", "import_peak", *FILTERS, "sync"]
    print("| rows | version | " + " | ".join(labels) + " |\n|---" * 1 + "|---" * (len(labels) + 1) + "|")
    for rows, versions in results.items():
        for name, figures in versions.items():
            cells = [
                f"{figures[one] / 1e6:,.0f} MB" if one == "import_peak" else f"{figures[one]:.2f} s" for one in labels
            ]
            print(f"| {rows:,} | {name} | " + " | ".join(cells) + " |")
    print(f"load {os.getloadavg()[0]:.1f}")
    for line in problems:
        print(f"NOT MET: {line}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
