"""What re-ordering the first hits takes: pictures read from their files, and regions kept in the index.

    python benchmarks/rerank.py FOLDER --matcher MATCHER [--count 300] [--queries 40] [--top 32] [--threads 2]

CPU seconds stand beside those of the clock, which other work on the machine lengthens.
One process, warm: an index of the folder's first pictures is built twice, without and with `--keep-regions`, and every
query of text → image is answered by both. Nothing that was read of pictures is remembered from one query to the next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search import steps
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher
from brivl_search.encoders.registry import load_encoder
from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import Silent
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import Engine, SearchOptions


def chosen(folder: Path, count: int, into: Path) -> Path:
    """A folder of links to the first pictures of another one."""
    into.mkdir()
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    for path in found[:count]:
        (into / path.name).symlink_to(path.resolve())
    return into


def texts_of(folder: Path, count: int) -> list[str]:
    """Captions beside a folder, one a picture; plain queries where there are none."""
    file = folder.parent / "captions.jsonl"
    if not file.is_file():
        return ["雪地里的狗", "a red car", "two children play in the water", "草地上的足球"]
    out: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines()[:count]:
        said = next(value for name, value in json.loads(line).items() if name != "image" and value)
        out.append(said if isinstance(said, str) else said[0])
    return out


def built(photos: Path, index: Path, encoder: Any, matcher: str | None) -> tuple[float, float, float, int]:
    """Seconds of the build from the first batch, CPU seconds of this process, MB of shards, pictures."""
    used = time.process_time()
    report = build_index([photos], index, encoder, BuildOptions(keep_regions=matcher, workers=1), Silent())
    size = sum(path.stat().st_size for path in (index / "shards").iterdir())
    return report.embed_seconds, time.process_time() - used, size / 1e6, report.embedded


@contextmanager
def timed_parts(spent: dict[str, float]) -> Iterator[None]:
    """Adds up where a matcher's time goes, by wrapping what it calls."""
    from brivl_search.encoders.one_tower.model import OneTower

    whole: list[tuple[type, str, Any]] = []
    watched: list[tuple[type, str]] = [
        (OneTowerMatcher, "pictures"), (OneTowerMatcher, "scores"), (OneTower, "texts"), (OneTower, "text_hubs"),
        (OneTower, "joint"), (IndexReader, "regions"),
    ]  # fmt: skip
    for owner, name in watched:
        method = getattr(owner, name)

        def wrapped(*given: Any, _method: Any = method, _name: str = f"{owner.__name__}.{name}", **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return _method(*given, **more)
            finally:
                spent[_name] += time.perf_counter() - start

        whole.append((owner, name, method))
        setattr(owner, name, wrapped)
    try:
        yield
    finally:
        for owner, name, method in whole:
            setattr(owner, name, method)


def asked(engine: Engine, texts: Sequence[str], options: SearchOptions) -> dict[str, Any]:
    """Median and 95th percentile of a query in ms, and the mean ms of its steps and parts."""
    for text in texts[:3]:
        engine.by_text(text, options)
    taken, cpu, by_step, parts = [], [], defaultdict[str, float](float), defaultdict[str, float](float)
    with timed_parts(parts):
        for text in texts:
            if options.rerank_with:
                engine.reranker(options.rerank_with).forget()
            start, used = time.perf_counter(), time.process_time()
            with steps.collect() as seconds:
                engine.by_text(text, options)
            taken.append(1000 * (time.perf_counter() - start))
            cpu.append(1000 * (time.process_time() - used))
            for name, spent in seconds.items():
                by_step[name] += spent
    mean = 1000 / len(texts)
    return {
        "ms": float(np.median(taken)),
        "p95": float(np.quantile(taken, 0.95)),
        "least": min(taken),
        "cpu": float(np.median(cpu)),
        "steps": {name: round(spent * mean, 2) for name, spent in by_step.items()},
        "parts": {name: round(spent * mean, 2) for name, spent in parts.items()},
    }


def orders(engine: Engine, texts: Sequence[str], options: SearchOptions) -> list[list[str]]:
    """The pictures of each query's hits, in order."""
    return [[hit.path for hit in engine.by_text(text, options)] for text in texts]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--matcher", required=True)
    parser.add_argument("--encoder", default="brivl-mini")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--top", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    place = Path(tempfile.mkdtemp(prefix="rerank-"))
    try:
        photos = chosen(given.folder, given.count, place / "photos")
        texts = texts_of(given.folder, given.queries)
        encoder = load_encoder(given.encoder, device="cpu")
        sizes = {}
        for name, matcher in (("plain", None), ("kept", given.matcher)):
            sizes[name] = built(photos, place / name, encoder, matcher)
            seconds, cpu, size, count = sizes[name]
            print(f"{name}: {count} pictures in {seconds:.1f} s, CPU {cpu:.1f} s; shards {size:.1f} MB")
        reordered = SearchOptions(given.top, rerank_with=given.matcher, rerank_top=given.top)
        rows = (("no matcher", "plain", SearchOptions(given.top)), ("files", "plain", reordered),
                ("kept regions", "kept", reordered))  # fmt: skip
        found = {}
        for label, index, options in rows:
            engine = Engine(place / index, device="cpu")
            result = asked(engine, texts, options)
            found[label] = orders(engine, texts, options)
            print(
                f"{label}: median {result['ms']:.1f} ms, least {result['least']:.1f}, p95 {result['p95']:.1f}; "
                f"CPU {result['cpu']:.1f} ms"
            )
            print(f"    steps {result['steps']}")
            print(f"    parts {result['parts']}")
        same = [a[0] == b[0] for a, b in zip(found["files"], found["kept regions"], strict=True)]
        print(f"the same first hit from files and from kept regions: {sum(same)} of {len(same)} queries")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
