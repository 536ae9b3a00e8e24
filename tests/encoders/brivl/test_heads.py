"""What both towers end with."""

from __future__ import annotations

import torch

from brivl_search.encoders.brivl.config import HeadConfig
from brivl_search.encoders.brivl.heads import TowerHead, masked_mean


def test_masked_mean_ignores_padding_and_survives_an_empty_row() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(tokens, mask).flatten().tolist() == [2.0, 0.0]


def test_head_gives_unit_vectors() -> None:
    head = TowerHead(16, 8, HeadConfig(layers=2, heads=2, feedforward=8, dropout=0.0)).eval()
    out = head(torch.randn(3, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool())
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
