"""Bulk embedding against its parts: is `build-index` as fast as the slower of decoding and encoding alone?

    python benchmarks/bulk_embedding.py                      # the bundled encoder, the 6,000 Flickr8k-CN photos
    python benchmarks/bulk_embedding.py --encoder FOLDER --limit 512 --rounds 3 --json

Measured in turns, because a machine's speed drifts, all with the files in the page cache:

    a  the encoder alone on decoded pictures in memory, in the batches that the build uses
    b  decoding alone: `decode_all` with the default workers, the pictures thrown away
    c  `build_index` into a fresh index, from its own `embed_seconds` (first picture to last vector)
    w  the whole real command, `python -m brivl_search build-index`, start-up and sealing included

The ratio of a round is c / min(a, b), where a is the mean of those just before and after c. The bar is 0.9.
CPU ms is processor time per picture, decoding processes included. OpenMP threads that wait for each other spin, which
counts as well, so it grows when something else runs on the machine: measure on an idle one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from brivl_search.corpus.decode_pool import decode_all, default_workers  # noqa: E402
from brivl_search.corpus.walk import ImageFile, scan  # noqa: E402
from brivl_search.encoders import DEFAULT, Encoder, load_encoder  # noqa: E402
from brivl_search.ingest.options import BuildOptions  # noqa: E402
from brivl_search.ingest.run import build_index  # noqa: E402

BAR = 0.9
PHOTOS = REPOSITORY.parent / "shared" / "data" / "flickr8k-cn" / "images"
IN_MEMORY = 2048  # decoded pictures kept for a: 300 MB at 224 pixels


@dataclass(frozen=True)
class Measured:
    """Pictures per second, and CPU seconds per picture of this process and its children."""

    rate: float
    cpu: float


class Silent:
    """The progress of a build, unseen."""

    def phase(self, name: str, total: int | None) -> None: ...

    def advance(self, steps: int) -> None: ...

    def note(self, line: str) -> None: ...


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(count: int, work: Callable[[], float | None]) -> Measured:
    """`work` may return the seconds that count; else its wall-clock does."""
    cpu, start = cpu_seconds(), time.perf_counter()
    seconds = work()
    wall = time.perf_counter() - start
    return Measured(count / (seconds or wall), (cpu_seconds() - cpu) / count)


def noise_photos(folder: Path, count: int) -> None:
    """JPEGs of 500 x 375 pixels: soft colours with grain, so that decoding costs about what photos do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), 3)
        grain = rng.normal(0, 12, (375, 500, 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06}.jpg", quality=85)


def collect(images: Path | None, limit: int | None, scratch: Path) -> Path:
    """The folder to index: the one given or the default, a copy of its first `limit` pictures, or made-up ones."""
    if images is None and not PHOTOS.is_dir():
        folder = scratch / "noise"
        folder.mkdir()
        noise_photos(folder, limit or 2000)
        return folder
    folder = images or PHOTOS
    if limit is None:
        return folder
    copies = scratch / "images"
    copies.mkdir()
    for number, file in enumerate(scan([folder]).images[:limit]):
        shutil.copy2(file.path, copies / f"{number:06}{Path(file.path).suffix}")
    return copies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help=f"folder of pictures [default: {PHOTOS}, else made-up ones]")
    parser.add_argument("--encoder", default=DEFAULT, help="bundled name or checkpoint folder [%(default)s]")
    parser.add_argument("--limit", type=int, help="only so many pictures")
    parser.add_argument("--rounds", type=int, default=2, help="[%(default)s]")
    parser.add_argument("--batch-size", type=int, default=BuildOptions().batch_size, help="[%(default)s]")
    parser.add_argument("--device", default="auto", help="[%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of the table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="brivl-bench-") as scratch:
        folder = collect(args.images, args.limit, Path(scratch))
        result = run(args, folder, Path(scratch))
    print(json.dumps(result, indent=2) if args.json else table(result))
    return 0 if float(str(result["ratio"])) >= BAR else 1


def run(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    encoder = load_encoder(args.encoder, device=args.device)
    options = BuildOptions(batch_size=args.batch_size)
    files = scan([folder]).images
    for file in files:  # into the page cache
        Path(file.path).read_bytes()
    # np.array: what the pool yields shares one buffer per chunk
    pixels = np.stack(
        [
            np.array(one.pixels)
            for one in decode_all(files[:IN_MEMORY], encoder.pixels, workers=default_workers())
            if one.pixels is not None
        ]
    )
    encoder.encode_images(pixels[: 2 * args.batch_size])  # loads the tower; the first passes choose kernels
    times: dict[str, list[Measured]] = {"a": [], "b": [], "c": [], "w": []}

    def take(what: str, count: int, work: Callable[[], float | None]) -> None:
        times[what].append(measured := measure(count, work))
        line = f"{what}: {measured.rate:8.1f} pictures/s {1000 * measured.cpu:7.2f} CPU ms each"
        print(line, file=sys.stderr, flush=True)

    for number in range(args.rounds):
        take("w", len(files), partial(command, args, folder, scratch / f"cli-{number}"))
        take("b", len(files), partial(decode, files, encoder, args.batch_size))
        take("a", len(pixels), partial(encode, encoder, pixels, args.batch_size))
        take("c", len(files), partial(build, folder, scratch / f"index-{number}", encoder, options, len(files)))
        take("a", len(pixels), partial(encode, encoder, pixels, args.batch_size))
    a, b, c, w = ([one.rate for one in times[what]] for what in "abcw")
    bounds = [min((a[2 * i] + a[2 * i + 1]) / 2, b[i]) for i in range(args.rounds)]
    ratios = [c[i] / bounds[i] for i in range(args.rounds)]
    return {
        "pictures": len(files),
        "folder": str(folder),
        "encoder": encoder.name,
        "batch_size": args.batch_size,
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "load_at_end": os.getloadavg()[0],
        "pictures_per_second": {what: [round(one.rate, 1) for one in found] for what, found in times.items()},
        "cpu_ms_per_picture": {what: [round(1000 * one.cpu, 2) for one in found] for what, found in times.items()},
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ratio_whole_command": statistics.median(w[i] / bounds[i] for i in range(args.rounds)),
        "bar": BAR,
    }


def encode(encoder: Encoder, pixels: np.ndarray, batch: int) -> None:
    for start in range(0, len(pixels), batch):
        encoder.encode_images(pixels[start : start + batch])


def decode(files: list[ImageFile], encoder: Encoder, batch: int) -> None:
    for one in decode_all(files, encoder.pixels, workers=default_workers(), ahead=max(4 * batch, 256)):
        assert one.pixels is not None or one.reason


def build(folder: Path, index: Path, encoder: Encoder, options: BuildOptions, count: int) -> float:
    report = build_index([folder], index, encoder, options, Silent())
    assert report.embedded + report.reused + len(report.skipped) == count, report
    return report.embed_seconds * count / report.embedded  # copies and bad files do not count as speed


def command(args: argparse.Namespace, folder: Path, index: Path) -> None:
    line = [sys.executable, "-m", "brivl_search", "build-index", str(folder), "--index", str(index), "--quiet"]
    line += ["--encoder", args.encoder, "--device", args.device, "--batch-size", str(args.batch_size)]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    subprocess.run(line, check=True, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)


def table(result: dict[str, Any]) -> str:
    rates, cpu = result["pictures_per_second"], result["cpu_ms_per_picture"]
    assert isinstance(rates, dict) and isinstance(cpu, dict)
    names = {
        "a": "encoder alone",
        "b": "decoding alone",
        "c": "build-index, embed_seconds",
        "w": "build-index, whole command",
    }
    lines = [f"{result['pictures']} pictures, encoder {result['encoder']}, {result['cpus']} CPUs", ""]
    lines.append(f"{'':30}{'pictures/s':>12}{'lowest':>9}{'highest':>9}{'CPU ms each':>13}")
    for what, name in names.items():
        r = rates[what]
        median = statistics.median(r)
        lines.append(f"{what}  {name:27}{median:12.1f}{min(r):9.1f}{max(r):9.1f}{statistics.median(cpu[what]):13.2f}")
    verdict = "met" if float(str(result["ratio"])) >= BAR else "MISSED"
    lines += [
        "",
        f"c / min(a, b)  {result['ratio']:.3f}   of rounds {result['ratios']}   bar {BAR}: {verdict}",
        f"w / min(a, b)  {result['ratio_whole_command']:.3f}   for information",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
