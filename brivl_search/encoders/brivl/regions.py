"""Region tokens: the mean of 4 × 4 bilinear samples of each box of a feature map, as one matrix product.

BriVL samples 4 × 4 points of a box, applies a 1 × 1 convolution and averages. All three steps are linear. So sampling
and averaging are one matrix (regions × cells), and the convolution becomes a linear layer after it.

The points of a box form a grid, and a bilinear weight is the product of a row weight and a column weight. So is the
mean over the points: a box's row of the matrix is the outer product of H row weights and W column weights. It is
computed for all boxes of a batch at once. For a fixed grid the matrix is made once per size of feature map.

The published code builds its affine matrix with the align_corners=True formula and samples with align_corners=False.
Its points lie at p · W / (W − 1) − 0.5 cells, where p − 0.5 would be right. The released weights were trained so:
`convention="brivl"` keeps it, "aligned" is the right place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

SAMPLES = 4  # points per side of a box
Convention = Literal["brivl", "aligned"]


def grid_boxes(grids: Sequence[int], width: float, height: float) -> Tensor:
    """Boxes (x1, y1, x2, y2) of every n × n grid in `grids`, float32 (Σn², 4). As in BriVL, x is the outer loop."""
    boxes = [
        (i * width / n, j * height / n, (i + 1) * width / n, (j + 1) * height / n)
        for n in grids
        for i in range(n)
        for j in range(n)
    ]
    return torch.tensor(boxes, dtype=torch.float32)


def box_weights(boxes: Tensor, height: int, width: int, convention: Convention = "brivl") -> Tensor:
    """The matrices M with `tokens = M @ features.flatten(1).T`, one per set of boxes.

    Args:
        boxes: (..., R, 4) float32 in feature-map units, x1, y1, x2, y2.
        height, width: of the feature map, in cells.
        convention: where the samples lie; see the top of this module. Outside the map, "brivl" reads zeros and
            "aligned" the nearest cell.

    Returns:
        (..., R, H·W) float32.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    columns, rows = _axis(x1, x2, width, convention), _axis(y1, y2, height, convention)
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def _axis(low: Tensor, high: Tensor, cells: int, convention: Convention) -> Tensor:
    """Mean bilinear weight of each cell for SAMPLES points between `low` and `high`, both (..., R): (..., R, cells)."""
    steps = (torch.arange(SAMPLES, device=low.device, dtype=low.dtype) + 0.5) / SAMPLES
    points = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * steps
    stretched = cells / max(cells - 1, 1)
    points = points * stretched - 0.5 if convention == "brivl" else (points - 0.5).clamp(0, cells - 1)
    distance = (points.unsqueeze(-1) - torch.arange(cells, device=low.device, dtype=low.dtype)).abs()
    return (1 - distance).clamp(min=0).mean(-2)


def pooling_matrix(grids: Sequence[int], height: int, width: int, convention: Convention = "brivl") -> Tensor:
    """`box_weights` of a fixed grid, shape (Σn², H·W), float32."""
    return box_weights(grid_boxes(grids, width, height), height, width, convention)
