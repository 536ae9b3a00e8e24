"""Masked regions: UNITER's mask of a region, and the head that says what was under it (arXiv 1909.11740 §3.2, MRFR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedRegions(nn.Module):
    """For training alone: no score reads it."""

    def __init__(self, width: int, region_size: int) -> None:
        """Builds it.

        Args:
            width: of the tokens.
            region_size: numbers of a region.
        """
        super().__init__()
        self.mask = nn.Parameter(torch.empty(region_size).normal_(std=0.02))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(region_size))

    def hide(self, features: Tensor, asked: Tensor) -> Tensor:
        """Features (B, R, region_size): 0 and the learned mask vector where `asked`, bool (B, R), is true."""
        return torch.where(asked.unsqueeze(-1), self.mask.to(features.dtype), features)

    def forward(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Tokens (N, width) of joint layers → features (N, region_size).

        Args:
            tokens: of the regions that are asked for.
            weight: (width, region_size), of the linear layer that reads features; used the other way round.
        """
        return F.linear(self.head(tokens), weight.T, self.bias)
