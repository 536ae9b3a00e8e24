"""BriVL's claim at our scale: do queues of momentum keys beat CLIP's in-batch negatives where batches are small?

    python benchmarks/brivl_vs_clip.py                       # 48 runs of 200 steps; goes on where it was stopped
    python benchmarks/brivl_vs_clip.py --steps 100 --seeds 1 --batches 32,64 --queues 1024
    python benchmarks/brivl_vs_clip.py --show                # table and plot of what there is

Same towers, data, initial weights, learning rate, temperature and number of steps for all; per seed the same photos and
captions in the same order for all of one batch size. CLIP: in-batch loss. MoCo: cross-modal MoCo as published, queue
negatives alone. Both are measured on the averaged (momentum) towers on the recipe's validation photos. Every run is its
own process; its memory is the peak of its anonymous pages (mapped feature caches do not count), its time per step
the median over the run's log. Runs share nothing else, so the order does not matter; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
FIGURES = ("t2i@1", "t2i@10", "i2t@1", "i2t@10")


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process now, in MiB; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous:")), 0.0)


def one_run(args: argparse.Namespace, batch: int, queue: int, seed: int) -> dict[str, Any]:
    """Trains once; queue 0 is CLIP."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "run": folder, "train.steps": args.steps, "train.eval_every": args.steps, "train.batch": batch,
            "train.captions_per_image": 1, "train.seed": seed, "train.warmup": args.steps // 10,
            "train.loss": "moco" if queue else "clip", "train.in_batch_negatives": "false", "train.workers": 0,
        }  # fmt: skip
        if queue:
            settings["train.queue_size"] = queue
        command = [sys.executable, "-W", "ignore", "-m", "train.pretrain", str(args.recipe)]
        command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        child = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, anonymous_mb(child.pid))
            time.sleep(0.2)
        if child.returncode:
            raise SystemExit(f"a run failed: {' '.join(command)}\n{child.stderr.read() if child.stderr else ''}")
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
        log = [line for line in lines if "loss" in line]  # the first line is the start's recall
    speeds = [line["images_per_s"] for line in log[1:]] or [log[0]["images_per_s"]]
    recall = log[-1]["recall"][args.captions]
    return {
        "batch": batch, "queue": queue, "seed": seed, "steps": args.steps, "peak_mb": round(peak),
        "seconds_per_step": round(batch / statistics.median(speeds), 4), **{name: recall[name] for name in FIGURES},
    }  # fmt: skip


def rows_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread (lowest to highest) over the seeds, a row per batch and objective."""
    rows = []
    for batch, queue in sorted({(r["batch"], r["queue"]) for r in results}):
        runs = [r for r in results if (r["batch"], r["queue"]) == (batch, queue)]
        row: dict[str, Any] = {"batch": batch, "queue": queue, "seeds": len(runs)}
        for name in (*FIGURES, "peak_mb", "seconds_per_step"):
            values = [float(r[name]) for r in runs]
            row[name] = (statistics.mean(values), min(values), max(values))
        rows.append(row)
    return rows


def show(results: list[dict[str, Any]], image: Path) -> None:
    """A Markdown table on stdout and a plot."""
    print("| batch | objective | seeds | text→image R@1 | R@10 | image→text R@1 | R@10 | s/step | peak memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = rows_of(results)
    for row in rows:
        cells = [f"{mean:.1f} ({low:.1f}–{high:.1f})" for mean, low, high in (row[name] for name in FIGURES)]
        name = f"MoCo, queue {row['queue']:,}" if row["queue"] else "CLIP"
        cost = f"{row['seconds_per_step'][0]:.2f} | {row['peak_mb'][0]:,.0f} MiB"
        print(f"| {row['batch']} | {name} | {row['seeds']} | {' | '.join(cells)} | {cost} |")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True, sharex=True)
    for axis, name, title in zip(axes, ("t2i@10", "i2t@10"), ("text → image", "image → text"), strict=True):
        for queue in sorted({row["queue"] for row in rows}):
            part = [row for row in rows if row["queue"] == queue]
            mean = [row[name][0] for row in part]
            error = [[m - row[name][1] for m, row in zip(mean, part, strict=True)],
                     [row[name][2] - m for m, row in zip(mean, part, strict=True)]]  # fmt: skip
            label = f"MoCo, queue {queue:,}" if queue else "CLIP, in-batch"
            axis.errorbar([row["batch"] for row in part], mean, error, marker="o", capsize=3, label=label)
        axis.set(xscale="log", xlabel="batch (pairs)", ylabel="R@10, % of 500 held-out photos", title=title)
        axis.set_xticks([row["batch"] for row in rows], [str(row["batch"]) for row in rows])
        axis.minorticks_off()
    axes[0].legend(fontsize=8)
    figure.savefig(image, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "train" / "recipes" / "compare.toml")
    parser.add_argument("--captions", default="en", help="field of the validation captions")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batches", default="32,64,128,256")
    parser.add_argument("--queues", default="0,1024,4096,16384", help="0 is CLIP")
    parser.add_argument(
        "--out", type=Path, default=HERE / "brivl_vs_clip.jsonl", help="results; done runs are not repeated"
    )
    parser.add_argument("--show", action="store_true", help="run nothing")
    args = parser.parse_args()
    results = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    wanted = [
        (int(batch), int(queue), seed)
        for seed in range(args.seeds)
        for batch in args.batches.split(",")
        for queue in args.queues.split(",")
    ]
    done = {(r["batch"], r["queue"], r["seed"]) for r in results if r["steps"] == args.steps}
    for batch, queue, seed in [] if args.show else [w for w in wanted if w not in done]:
        results.append(one_run(args, batch, queue, seed))
        with args.out.open("a") as out:
            out.write(json.dumps(results[-1]) + "\n")
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    show([r for r in results if r["steps"] == args.steps], args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
