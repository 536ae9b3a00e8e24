"""What brivl-search makes of a GPU, in at most ten minutes, as one JSON on stdout.

    python benchmarks/gpu.py > gpu.json              # an NVIDIA card, torch, timm, transformers, pydantic; no faiss
    python benchmarks/gpu.py --images FOLDER         # real photos for decoding; made ones otherwise
    python benchmarks/gpu.py --device cpu --small    # the same code with tiny models: a test, and no measurement

Parts, each in a process of its own with a limit of its own (`PARTS`):

    matmul       the card and the versions; its bfloat16 matrix products, FLOP/s: what the rest is held against
    tower …      images/s of an image tower in bfloat16 and channels_last, with and without torch.compile; FLOPs from
                 torch's own counter, and their share of the matrix rate
    decoding     JPEGs → the tower's pixels: CPU workers, as build-index has them, against nvJPEG (torchvision)
    end to end   files → workers → stacked → brivl-mini, as build-index does it but for the writing of the index
    training     pairs/s of a step of the recipe brivl-1.0, with and without gradient checkpointing
    nccl         one rank: a process group, and the trainer's own gathering and averaging of gradients

A part that fails, or whose time is up, says why, and keeps what it had measured; the others go on. `--save FILE` has
what is known after each part, for a run that is killed. Weights are random (but for brivl-mini's): speed does not
depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SCRIPT = Path(__file__).resolve()  # that a part is run by
MINUTES = 9.5  # in all
START = 5.0  # seconds that are left for a part to be begun at all


@dataclass(frozen=True)
class Part:
    """A part and the seconds that it may take, the start of its process among them."""

    name: str
    seconds: float


PARTS = (
    Part("matmul", 25),
    Part("tower brivl-mini", 60),
    Part("tower vit-b-32", 50),
    Part("tower chinese-clip-b-16", 50),
    Part("tower brivl-b5", 70),
    Part("tower brivl-b7", 80),
    Part("decoding", 50),
    Part("end to end", 50),
    Part("training", 95),
    Part("nccl", 25),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.part:
        run_part(args)
        return
    print(json.dumps(run_all(args), indent=2, ensure_ascii=False))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and inputs: a test of this script")
    parser.add_argument("--images", type=Path, help="a folder of JPEGs to decode; made ones otherwise")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all, at most ({MINUTES})")
    parser.add_argument("--only", action="append", metavar="PART", help="only parts whose name begins so")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also written here, after each part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# -- the parent ----------------------------------------------------------------------------------------------------


def run_all(args: argparse.Namespace) -> dict[str, Any]:
    """Every part after the other; what is printed."""
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    wanted = [part for part in PARTS if not args.only or part.name.startswith(tuple(args.only))]
    parts: dict[str, Any] = {}
    found: dict[str, Any] = {
        "started": started,
        "device": args.device,
        "small": args.small,
        "measurement": args.device.startswith("cuda") and not args.small,
        "parts": parts,
    }
    for part in wanted:
        left = 60 * args.minutes - (time.monotonic() - began)
        parts[part.name] = in_process(args, part, left)
        print(f"{part.name}: {parts[part.name]['state']}", file=sys.stderr, flush=True)
        relate(parts)
        found["seconds"] = round(time.monotonic() - began, 1)
        if args.save:
            args.save.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def in_process(args: argparse.Namespace, part: Part, left: float) -> dict[str, Any]:
    """Runs a part in a process of its own, and kills it when its time is up.

    Returns:
        `state` ("done", "failed", "out of time", "skipped"), `why` where it is not done, `seconds`, and `cases`: what
        was measured, by name.
    """
    limit = min(part.seconds, left)
    if limit < START:
        return {"state": "skipped", "why": f"{max(left, 0):.0f} s of --minutes {args.minutes:g} were left", "cases": {}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="brivl-gpu-") as folder:
        out = Path(folder) / "part.json"
        line = [sys.executable, os.fspath(SCRIPT), "--part", part.name, "--out", os.fspath(out)]
        line += ["--device", args.device, "--seconds", f"{limit:.1f}", *(["--small"] if args.small else [])]
        line += ["--images", os.fspath(args.images)] if args.images else []
        state, why = "done", ""
        try:
            done = subprocess.run(line, timeout=limit, capture_output=True, text=True, errors="replace", cwd=REPOSITORY)
            if done.returncode:
                state, why = "failed", _last(done.stderr) or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            state, why = "out of time", f"{limit:.0f} s were over"
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    told = {"why": why} if why else {}
    return {"state": state, **told, "seconds": round(time.monotonic() - began, 1), "cases": found}


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def relate(parts: dict[str, Any]) -> None:
    """Puts beside each rate of FLOPs its share of the matrix rate that was measured."""
    products = parts.get("matmul", {}).get("cases", {}).values()
    best = max((case["flops_per_second"] for case in products if "flops_per_second" in case), default=None)
    for name, part in parts.items():
        for case in part["cases"].values():
            if best and name != "matmul" and "flops_per_second" in case:
                case["of_matmul"] = round(case["flops_per_second"] / best, 4)


# -- a part --------------------------------------------------------------------------------------------------------


class Cases:
    """What a part has measured, on disk after each: a part that is killed loses nothing."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.found: dict[str, Any] = {}

    def put(self, name: str, **values: Any) -> None:
        """One measurement, or `skipped` or `failed` with a reason."""
        self.found[name] = values
        whole = self.out.with_suffix(".tmp")
        whole.write_text(json.dumps(self.found), encoding="utf-8")
        os.replace(whole, self.out)

    def attempt(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Puts what `measure` gives; what it raises becomes `failed`, and the part goes on."""
        try:
            values = measure()
        except Exception as error:  # whatever torch, CUDA or a compiler says
            lines = str(error).strip().splitlines() or [""]
            self.put(name, failed=f"{type(error).__name__}: {lines[0][:200]}")
            return None
        self.put(name, **values)
        return values


def run_part(args: argparse.Namespace) -> None:
    """In the process of a part."""
    import gpu_files
    import gpu_parts
    import gpu_training

    kind, _, which = args.part.partition(" ") if args.part.startswith("tower ") else (args.part, "", "")
    job = gpu_parts.Job(args.device, args.small, args.seconds, args.images, Cases(args.out))
    work = {
        "matmul": gpu_parts.matmul,
        "tower": lambda job: gpu_parts.tower(job, which),
        "decoding": gpu_files.decoding,
        "end to end": gpu_files.end_to_end,
        "training": gpu_training.training,
        "nccl": gpu_training.one_rank,
    }
    work[kind](job)


if __name__ == "__main__":
    main()
