"""What an evaluation of COCO's size takes: 30,000 images × 150,000 texts, both directions, all figures with intervals.

    python benchmarks/eval_memory.py
    python benchmarks/eval_memory.py --images 3000 --json

Vectors are made up (unit, 256 dimensions, a text is its image plus noise), float16, and read from files through memory
maps; `--ram` holds them in memory. Peak RSS counts the pages of those maps too; the growth of anonymous memory
(RssAnon, sampled every 5 ms) is what the evaluation itself needs. The exit code is 1 if that is more than 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from brivl_search.evaluation.pairs import DIRECTIONS, Pairs
from brivl_search.evaluation.result import EvaluationOptions, Searched, evaluation_of
from brivl_search.metrics import Bootstrap, partner_ranks, top_lists

BAR = 2e9
BLOCK = 4096


class AnonymousMemory(threading.Thread):
    """The peak of RssAnon, bytes, while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = anonymous()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, anonymous())


def anonymous() -> int:
    """Bytes of anonymous memory that are resident now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no RssAnon in /proc/self/status: this benchmark needs Linux")


def write_vectors(folder: Path, images: int, captions: int, dim: int, noise: float) -> tuple[Path, Path]:
    """images.npy float16 (images, dim) and texts.npy float16 (images × captions, dim), block by block."""
    rng = np.random.default_rng(0)
    files = folder / "images.npy", folder / "texts.npy"
    left = np.lib.format.open_memmap(files[0], "w+", np.float16, (images, dim))
    right = np.lib.format.open_memmap(files[1], "w+", np.float16, (images * captions, dim))
    for at in range(0, images, BLOCK):
        count = min(BLOCK, images - at)
        vectors = unit(rng.standard_normal((count, dim), dtype=np.float32))
        left[at : at + count] = vectors
        texts = np.repeat(vectors, captions, axis=0)
        texts += noise / np.sqrt(dim) * rng.standard_normal(texts.shape, dtype=np.float32)
        right[at * captions : (at + count) * captions] = unit(texts)
    left.flush()
    right.flush()
    return files


def unit(vectors: np.ndarray) -> np.ndarray:
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--captions", type=int, default=5, help="texts for each image")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--noise", type=float, default=4.0, help="length of a text's noise beside its image's 1")
    parser.add_argument("--ram", action="store_true", help="hold the float16 vectors in memory")
    parser.add_argument("--top", action="store_true", help="the 10 best of every query too, as --per-query wants them")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_vectors(Path(folder), args.images, args.captions, args.dim, args.noise)
        images, texts = (np.load(file, mmap_mode=None if args.ram else "r") for file in files)
        names = [f"{n}.jpg" for n in range(args.images)]
        owners = [[n] for n in range(args.images) for _ in range(args.captions)]
        pairs = Pairs([str(n) for n in range(len(texts))], names, owners, texts, images)
        watch = AnonymousMemory()
        watch.start()
        seconds: dict[str, float] = {}
        searched = {}
        for name in DIRECTIONS:
            began = time.perf_counter()
            way = pairs.direction(name)
            searched[name] = {"exact": Searched(partner_ranks(way.queries, way.candidates, way.truth))}
            seconds[name] = time.perf_counter() - began
            if args.top:
                began = time.perf_counter()
                top_lists(way.queries, way.candidates, 10)
                seconds[f"{name}_top"] = time.perf_counter() - began
        began = time.perf_counter()
        options = EvaluationOptions(bootstrap=Bootstrap())
        result = evaluation_of(
            pairs, searched, (1, 5, 10), options, source="made up", fields=("captions",), encoder="none"
        )
        seconds["figures_and_intervals"] = time.perf_counter() - began
        watch.done.set()
        watch.join()
    out = {
        "images": args.images,
        "texts": len(texts),
        "dim": args.dim,
        "anonymous_growth_bytes": watch.peak - watch.before,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "vector_bytes": images.nbytes + texts.nbytes,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "load": os.getloadavg()[0],
        "text_to_image": result.to_dict()["text_to_image"]["exact"],
    }
    met = out["anonymous_growth_bytes"] <= BAR
    if args.json:
        print(json.dumps(out))
        return 0 if met else 1
    grown, peak, vectors = (out[key] / 1e6 for key in ("anonymous_growth_bytes", "peak_rss_bytes", "vector_bytes"))
    print(f"{args.images:,} images × {len(texts):,} texts, {args.dim} dimensions, {vectors:,.0f} MB")
    print(f"own memory   {grown:,.0f} MB  (bar: {BAR / 1e6:,.0f} MB, {'met' if met else 'NOT MET'})")
    print(f"peak RSS     {peak:,.0f} MB  (Python, NumPy and mapped pages included)")
    for part, value in seconds.items():
        print(f"{part:<22} {value:8.1f} s")
    print(f"load {out['load']:.1f}; text → image R@1 {out['text_to_image']['R@1']}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
