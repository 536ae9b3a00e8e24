"""BriVL 2.0's region tokens: a fixed grid of boxes and the whole image, pooled from a feature map without a detector.

BriVL samples 4 × 4 points of every box, applies a 1 × 1 convolution and averages. Sampling, averaging and the
convolution are linear, so for boxes that never change the sampling and averaging are one matrix (regions × cells), made
once per feature-map size, and the convolution is a linear layer after it.

The published code builds its affine matrix with the align_corners=True formula and then samples with
align_corners=False; that is kept, because released weights were trained with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLES = 4  # points per side of a box


def grid_boxes(grids: Sequence[int], width: float, height: float) -> Tensor:
    """Boxes (x1, y1, x2, y2) of every n × n grid in `grids`, x outer and y inner as BriVL loops, shape (Σn², 4)."""
    boxes = [
        (i * width / n, j * height / n, (i + 1) * width / n, (j + 1) * height / n)
        for n in grids
        for i in range(n)
        for j in range(n)
    ]
    return torch.tensor(boxes, dtype=torch.float32)


def sample_boxes(features: Tensor, boxes: Tensor) -> Tensor:
    """Mean of SAMPLES × SAMPLES bilinear samples in each box.

    Args:
        features: (C, H, W) float32.
        boxes: (R, 4) in feature-map units, x1, y1, x2, y2.

    Returns:
        (R, C) float32.
    """
    channels, height, width = features.shape
    x1, y1, x2, y2 = boxes.unbind(1)
    theta = torch.zeros(len(boxes), 2, 3, dtype=features.dtype, device=features.device)
    theta[:, 0, 0] = (x2 - x1) / max(width - 1, 1)
    theta[:, 0, 2] = (x1 + x2 - width + 1) / max(width - 1, 1)
    theta[:, 1, 1] = (y2 - y1) / max(height - 1, 1)
    theta[:, 1, 2] = (y1 + y2 - height + 1) / max(height - 1, 1)
    points = F.affine_grid(theta, [len(boxes), channels, SAMPLES, SAMPLES], align_corners=False)
    sampled = F.grid_sample(features.expand(len(boxes), -1, -1, -1), points, align_corners=False)
    return sampled.mean((2, 3))


def pooling_matrix(grids: Sequence[int], height: int, width: int) -> Tensor:
    """The matrix M with `tokens = M @ features.flatten(1).T`, shape (Σn², H·W), float32."""
    basis = torch.eye(height * width).reshape(height * width, height, width)
    return sample_boxes(basis, grid_boxes(grids, width, height))
