"""Region tokens: the matrix of bilinear weights against the published loop, and against torchvision's RoIAlign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from brivl_search.encoders.brivl.regions import box_weights, grid_boxes, pooling_matrix


def test_grid_is_36_cells_x_outer_and_the_whole_image_last() -> None:
    boxes = grid_boxes([6, 1], 12, 12)
    assert boxes.shape == (37, 4)
    assert boxes[0].tolist() == [0, 0, 2, 2] and boxes[1].tolist() == [0, 2, 2, 4]
    assert boxes[-1].tolist() == [0, 0, 12, 12]


def test_pooling_matrix_equals_brivls_roi_sampling() -> None:
    """Against the published recipe: affine grid with the align_corners=True formula, sampled with the default."""
    features, boxes = torch.randn(5, 7, 9), grid_boxes([6, 1], 9, 7)
    want = []
    for x1, y1, x2, y2 in boxes.tolist():
        theta = torch.tensor([[(x2 - x1) / 8, 0, (x1 + x2 - 9 + 1) / 8], [0, (y2 - y1) / 6, (y1 + y2 - 7 + 1) / 6]])
        grid = F.affine_grid(theta[None], [1, 5, 4, 4], align_corners=False)
        want.append(F.avg_pool2d(F.grid_sample(features[None], grid, align_corners=False), 4).flatten())
    torch.testing.assert_close(
        pooling_matrix([6, 1], 7, 9) @ features.flatten(1).T, torch.stack(want), atol=1e-5, rtol=1e-4
    )


def loop(features: Tensor, boxes: Tensor) -> Tensor:
    """The published sampling: picture by picture, box by box; features (B, C, H, W), boxes (B, R, 4) in cells."""
    _, channels, height, width = features.shape
    out = torch.empty(*boxes.shape[:2], channels)
    for i, some in enumerate(boxes.tolist()):
        for j, (x1, y1, x2, y2) in enumerate(some):
            theta = torch.tensor(
                [
                    [(x2 - x1) / (width - 1), 0, (x1 + x2 - width + 1) / (width - 1)],
                    [0, (y2 - y1) / (height - 1), (y1 + y2 - height + 1) / (height - 1)],
                ]
            )
            grid = F.affine_grid(theta[None], [1, channels, 4, 4], align_corners=False)
            out[i, j] = F.grid_sample(features[i : i + 1], grid, align_corners=False).mean((2, 3))[0]
    return out


def random_boxes(batch: int, count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Among them boxes of one cell, of all, of nothing, and at every border."""
    corners = torch.rand(batch, count, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(2).values
    boxes = corners.flatten(2) * torch.tensor([width, height, width, height])
    boxes[:, 0] = torch.tensor([0.0, 0.0, width, height])
    boxes[:, 1] = 0
    boxes[:, 2] = torch.tensor([width - 0.5, height - 0.5, width, height])
    return boxes


@pytest.mark.parametrize(("height", "width"), [(12, 12), (15, 15), (7, 9), (2, 3)])
def test_batched_pooling_is_the_loop(height: int, width: int) -> None:
    features = torch.randn(3, 5, height, width, generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(3, 37, height, width)
    pooled = box_weights(boxes, height, width) @ features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled, loop(features, boxes), atol=2e-5, rtol=1e-4)


def test_pooling_is_one_roi_align() -> None:
    """The convention "aligned" is torchvision's; "brivl" is it on stretched boxes over a map framed with zeros."""
    height, width = 7, 9
    features = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(2, 20, height, width)
    cells = features.flatten(2).transpose(1, 2)
    aligned = roi_align(features, list(boxes), (1, 1), sampling_ratio=4, aligned=True).view(2, 20, 5)
    torch.testing.assert_close(box_weights(boxes, height, width, "aligned") @ cells, aligned, atol=2e-5, rtol=1e-4)
    stretch = torch.tensor([width / (width - 1), height / (height - 1)] * 2)
    framed = roi_align(F.pad(features, (1, 1, 1, 1)), list(boxes * stretch + 1), (1, 1), sampling_ratio=4, aligned=True)
    torch.testing.assert_close(box_weights(boxes, height, width) @ cells, framed.view(2, 20, 5), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(aligned, framed.view(2, 20, 5), atol=1e-2)


def test_gradients_reach_the_features() -> None:
    features = torch.randn(2, 4, 6, 6, requires_grad=True)
    (box_weights(random_boxes(2, 5, 6, 6), 6, 6) @ features.flatten(2).transpose(1, 2)).sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
