"""Made pictures and texts, the same ones everywhere: an export is compared with torch on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus import patches
from brivl_search.corpus.pixels import PixelSpec

_SHAPES = ((3, 4, 1.0), (1, 1, 1.0), (4, 3, 0.5), (1, 2, 1.0), (3, 1, 0.3))  # height, width, share of the patches
_TEXTS = (
    "a dog on grass",
    "一只在草地上的狗",
    "Two people, 3 bikes & a red car (1998)!",
    "雪地里的狗，2 只！",
    "x",
    "“quoted” words — and ‘others’ …",
    "a very long sentence about a market by the sea where people sell fish, fruit and flowers " * 4,
    "一个小女孩在海边的沙滩上和她的狗一起奔跑，天空很蓝，海浪轻轻地拍打着岸边的岩石。" * 4,
    "ÄÖÜ café naïve Straße",
    "犬が草の上にいる 강아지 собака κόσμος",
    "don't it's 10,000.50€",
    "   spaces   and\ttabs  ",
)


def texts(n: int) -> list[str]:
    """n texts, at most a dozen different ones."""
    return [_TEXTS[at % len(_TEXTS)] for at in range(n)]


def pictures(n: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """n pictures, uint8 RGB (n, size, size, 3), with the statistics of photographs: dead leaves.

    Discs of all sizes lie over each other (radii by r⁻³), each of one colour with a slope of light and some grain
    (Lee, Mumford, Huang, "Occlusion models for natural images", 2001). Noise alone drives a network as no photo does.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    out = np.empty((n, size, size, 3), np.uint8)
    for at in range(n):
        canvas = np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), (size, size, 3)).copy()
        base, spread = rng.uniform(20, 235, 3), rng.uniform(10, 90)
        for _ in range(int(rng.integers(15, 120))):
            radius = 0.02 / np.sqrt(rng.uniform(0.001, 1))
            y, x = rng.uniform(-0.1, 1.1, 2)
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            light = rng.normal(0, 60) * (rows[inside] - y) + rng.normal(0, 60) * (columns[inside] - x)
            colour = base + rng.normal(0, spread, 3)
            grain = rng.normal(0, rng.uniform(0, 12), (len(light), 1))
            canvas[inside] = colour + light[:, None] + grain
        out[at] = np.clip(canvas, 0, 255).astype(np.uint8)
    return out


def squares(n: int, spec: PixelSpec, seed: int = 0) -> NDArray[np.uint8]:
    """n pictures as a tower takes them, uint8 (n, S, S, 3): as patches, they have several aspect ratios and sizes."""
    return packed(pictures(n, spec.size, seed), spec)


def packed(pixels: NDArray[np.uint8], spec: PixelSpec) -> NDArray[np.uint8]:
    """uint8 (n, S, S, 3) → the same, or for a tower that takes patches, parts and repetitions of them as patches."""
    if spec.resize != "patches":
        return pixels
    out = np.empty_like(pixels)
    for at, picture in enumerate(pixels):
        high, wide, share = _SHAPES[at % len(_SHAPES)]
        rows, columns = patches.grid(high, wide, spec.patch, max(int(spec.max_patches * share), 1))
        rows, columns = rows * spec.patch, columns * spec.patch
        beyond = [(0, max(rows - spec.size, 0)), (0, max(columns - spec.size, 0)), (0, 0)]
        part = np.pad(picture, beyond, mode="wrap")[:rows, :columns]
        out[at] = patches.pack(np.ascontiguousarray(part), spec.patch, spec.size)
    return out


def least_cosine(vectors: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The least cosine of a row of (n, dim) and the same row of the vectors that are wanted."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((vectors * wanted).sum(1) / np.maximum(lengths, 1e-12)).min())
