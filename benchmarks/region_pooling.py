"""Region tokens of a batch, four ways: the published loop, its batched form, one `roi_align`, and our matrices.

    python benchmarks/region_pooling.py                        # BriVL's released sizes: 37 boxes of 12 x 12 x 2048 maps
    python benchmarks/region_pooling.py --device cuda --batch 64 --json

Every way starts from the CNN's feature maps and ends at the tokens the self-attention is given, 1 x 1 convolution
included; boxes are random and differ from picture to picture. They take turns, and the median of the rounds counts; the
ratio is the loop's time by the way's, in the same round. The script stops if their tokens differ.

    loop       the published code's: picture by picture sample 4 x 4 points of every box, convolve them, average
    batched    the same with the pictures' boxes folded into one grid_sample, convolution after the average
    roi_align  torchvision's operator on maps framed with zeros, convolution after it
    matrix     `brivl_search.encoders.brivl.regions.box_weights`: one product, convolution after it

"pooling alone" leaves the convolution away (it is the same for the three last).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from brivl_search.encoders.brivl.regions import box_weights  # noqa: E402

Pool = Callable[[Tensor, Tensor], Tensor]


def thetas(boxes: Tensor, height: int, width: int) -> Tensor:
    """(R, 4) in cells → the published affine matrices (R, 2, 3)."""
    x1, y1, x2, y2 = boxes.unbind(1)
    theta = boxes.new_zeros(len(boxes), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = (x2 - x1) / (width - 1), (x1 + x2 - width + 1) / (width - 1)
    theta[:, 1, 1], theta[:, 1, 2] = (y2 - y1) / (height - 1), (y1 + y2 - height + 1) / (height - 1)
    return theta


def loop(features: Tensor, boxes: Tensor, conv: nn.Conv2d | None) -> Tensor:
    """(B, C, H, W), (B, R, 4) → (B, R, C), picture by picture."""
    channels, height, width = features.shape[1:]
    tokens = []
    for one, some in zip(features, boxes, strict=True):
        grid = F.affine_grid(thetas(some, height, width), [len(some), channels, 4, 4], align_corners=False)
        points = F.grid_sample(one.expand(len(some), -1, -1, -1), grid, align_corners=False)
        tokens.append(F.avg_pool2d(points if conv is None else conv(points), 4, stride=1).flatten(1))
    return torch.stack(tokens)


def batched(features: Tensor, boxes: Tensor) -> Tensor:
    count, regions = boxes.shape[:2]
    channels, height, width = features.shape[1:]
    matrices = thetas(boxes.flatten(0, 1), height, width)
    grid = F.affine_grid(matrices, [count * regions, channels, 4, 4], align_corners=False)
    points = F.grid_sample(features, grid.view(count, regions * 4, 4, 2), align_corners=False)
    return points.view(count, channels, regions, 16).mean(3).transpose(1, 2)


def by_roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    height, width = features.shape[2:]
    stretch = boxes.new_tensor([width / (width - 1), height / (height - 1)] * 2)
    framed = F.pad(features, (1, 1, 1, 1))
    pooled = roi_align(framed, list(boxes * stretch + 1), (1, 1), sampling_ratio=4, aligned=True)
    tokens: Tensor = pooled.view(*boxes.shape[:2], -1)
    return tokens


def matrix(features: Tensor, boxes: Tensor) -> Tensor:
    height, width = features.shape[2:]
    return box_weights(boxes, height, width) @ features.flatten(2).transpose(1, 2)


def measure(ways: dict[str, Callable[[], Tensor]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every way in every round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=37)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    # As a CNN in channels-last memory leaves them.
    features = torch.randn(args.batch, args.channels, args.cells, args.cells).to(
        device, memory_format=torch.channels_last
    )
    corners = torch.rand(args.batch, args.boxes, 2, 2).sort(2).values * args.cells
    boxes = corners.flatten(2).to(device)
    conv = nn.Conv2d(args.channels, args.channels, 1).to(device)
    weight, bias = conv.weight.flatten(1), conv.bias

    def with_linear(pool: Pool) -> Callable[[], Tensor]:
        return lambda: F.linear(pool(features, boxes), weight, bias)

    pools: dict[str, Pool] = {"batched": batched, "roi_align": by_roi_align, "matrix": matrix}
    with torch.inference_mode():
        want = loop(features, boxes, conv)
        for name, pool in pools.items():
            difference = float((with_linear(pool)() - want).abs().max())
            if difference > 1e-3:
                sys.exit(f"{name} gives other tokens than the loop, by up to {difference:g}")
        parts: dict[str, dict[str, Callable[[], Tensor]]] = {
            "tokens": {"loop": lambda: loop(features, boxes, conv), **{n: with_linear(p) for n, p in pools.items()}},
            "pooling alone": {
                "loop": lambda: loop(features, boxes, None),
                **{n: partial(p, features, boxes) for n, p in pools.items()},
            },
        }
        found = {}
        for part, ways in parts.items():
            print(f"{part} ...", file=sys.stderr)
            times = measure(ways, args.rounds, device)
            found[part] = {
                name: {
                    "ms_per_picture": 1e3 * statistics.median(seconds) / args.batch,
                    "gain": statistics.median(a / b for a, b in zip(times["loop"], seconds, strict=True)),
                    "gains": [a / b for a, b in zip(times["loop"], seconds, strict=True)],
                }
                for name, seconds in times.items()
            }
    if args.json:
        print(json.dumps({**vars(args), "torch": torch.__version__, "threads": torch.get_num_threads(), **found}))
        return
    print("| | ms a picture | gain | spread |\n|---|---|---|---|")
    for part, ways_found in found.items():
        for name, one in ways_found.items():
            spread = f"{min(one['gains']):.1f}–{max(one['gains']):.1f}"
            print(f"| {part}: {name} | {one['ms_per_picture']:.2f} | {one['gain']:.1f} | {spread} |")


if __name__ == "__main__":
    main()
