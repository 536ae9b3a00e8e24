"""What a picture and a text cost in the towers, by runtime, against the floor of the CNNs alone.

    python benchmarks/tower_cost.py                    # the bundled encoder
    python benchmarks/tower_cost.py --encoder FOLDER --json

Milliseconds per picture (already decoded) and per text, in batches of 64 and alone; the runtimes take turns and the
median of the rounds counts. A ratio is time / time of eager float32 in the same run.
"CNNs alone" is the feature maps without regions, self-attention and MLP, in bfloat16.
torch.compile is measured after compiling; the seconds that took are printed beside it. Where it fails, its row says why
and the others stand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from brivl_search.encoders.brivl.encoder import BriVLEncoder  # noqa: E402
from brivl_search.encoders.registry import load_encoder  # noqa: E402

TEXTS = [
    "一只在草地上的狗",
    "a man on a bicycle in the street",
    "两个穿红衣服的小孩在海边玩",
    "a cup of coffee on a table",
]
COMPILED = "torch.compile bfloat16"
Call = Callable[[], Any]


def autocast(enabled: bool, call: Call) -> Call:
    def run() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return call()

    return run


def without_fast_path(call: Call) -> Call:
    """Self-attention layer by layer of PyTorch's own: its fused operator, once compiled, does not see autocast."""

    def run() -> Any:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return call()
        finally:
            torch.backends.mha.set_fastpath_enabled(before)

    return run


def calls(
    encoder: BriVLEncoder, batch: int, compiled: bool
) -> tuple[dict[str, Call], dict[str, Call], dict[str, float | str]]:
    """Calls by runtime for images and for texts, and the seconds compiling took or why it failed."""
    image, text = encoder.image_tower, encoder.text_tower
    took: dict[str, float | str] = {}
    size = encoder.pixels.size
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (batch, size, size, 3), dtype=np.uint8))
    ids, mask = (
        torch.from_numpy(a)
        for a in encoder.tokenizer.batch(encoder.tokenizer.ids([TEXTS[i % 4] for i in range(batch)]))
    )
    images = {
        "CNNs alone, bfloat16": autocast(True, lambda: [backbone(pixels) for backbone in image.backbones]),
        "eager float32": autocast(False, lambda: image(pixels)),
        "eager bfloat16": autocast(True, lambda: image(pixels)),
    }
    texts = {
        "eager float32": autocast(False, lambda: text(ids, mask)),
        "eager bfloat16": autocast(True, lambda: text(ids, mask)),
    }
    if compiled:
        for calls_, tower, inputs in ((images, image, (pixels,)), (texts, text, (ids, mask))):
            kind = "image" if calls_ is images else "text"
            start = time.perf_counter()
            try:
                fast = torch.compile(tower)
                call = without_fast_path(autocast(True, lambda fast=fast, inputs=inputs: fast(*inputs)))  # type: ignore[misc]
                call()
            except Exception as error:  # whatever torch says: no compiler, no Python headers, an operator
                lines = str(error).strip().splitlines() or [""]
                took[kind] = f"failed: {type(error).__name__}: {lines[0][:120]}"
                continue
            took[kind] = time.perf_counter() - start
            calls_[COMPILED] = call
    return images, texts, took


def measure(runtimes: dict[str, Call], rounds: int, per_round: int) -> dict[str, list[float]]:
    """Seconds per call of every runtime and round, in turns."""
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    for call in runtimes.values():
        call()
    for _ in range(rounds):
        for name, call in runtimes.items():
            start = time.perf_counter()
            for _ in range(per_round):
                call()
            times[name].append((time.perf_counter() - start) / per_round)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="brivl-mini", help="bundled name or checkpoint folder")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    encoder = load_encoder(args.encoder, device="cpu")
    if not isinstance(encoder, BriVLEncoder):
        raise SystemExit(f"{args.encoder} is not a BriVL checkpoint")
    results: list[dict[str, Any]] = []
    for batch in (64, 1):
        images, texts, took = calls(encoder, batch, not args.no_compile)
        for kind, runtimes in (("image", images), ("text", texts)):
            times = measure(runtimes, args.rounds, 2 if batch > 1 else 20)
            base = statistics.median(times["eager float32"])
            for name, seconds in times.items():
                results.append(
                    {
                        "kind": kind,
                        "batch": batch,
                        "runtime": name,
                        "ms": statistics.median(seconds) / batch * 1e3,
                        "ms_low": min(seconds) / batch * 1e3,
                        "ms_high": max(seconds) / batch * 1e3,
                        "ratio": statistics.median(seconds) / base,
                        "compile_s": took.get(kind) if name == COMPILED else None,
                    }
                )
            if isinstance(failed := took.get(kind), str):
                results.append({"kind": kind, "batch": batch, "runtime": COMPILED, "failed": failed})
    if args.json:
        print(json.dumps(results, indent=1))
        return
    print("| tower | batch | runtime | ms each | spread | time / eager float32 |\n|---|---|---|---|---|---|")
    for r in results:
        if "failed" in r:
            print(f"| {r['kind']} | {r['batch']} | {r['runtime']} | {r['failed']} | | |")
            continue
        note = f" (compiled in {r['compile_s']:.0f} s)" if r["compile_s"] else ""
        spread = f"{r['ms_low']:.2f}–{r['ms_high']:.2f}"
        print(f"| {r['kind']} | {r['batch']} | {r['runtime']}{note} | {r['ms']:.2f} | {spread} | {r['ratio']:.2f} |")


if __name__ == "__main__":
    main()
