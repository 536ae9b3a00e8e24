"""Words beside regions: each word looks for the region that resembles it most, before any joint layer.

It is late interaction, as in ColBERT (arXiv 2004.12832) and FILIP (arXiv 2111.07783), with a soft maximum:
s(T, I) = scale · Σ_w share_w · log Σ_r exp(λ cos(w, r)) / λ. UNITER aligns words and regions too, by optimal transport,
and in training alone (arXiv 1909.11740 §3.2). Here it is a part of the score, which joint layers correct.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARPNESS = 10.0  # λ; the mean over regions is λ → 0, the best region λ → ∞
HIGHEST_SCALE = 100.0


@dataclass(frozen=True)
class Words:
    """Of B texts: unit vectors (B, T, size), and the share of each word, (B, T), which is 0 at padding; float32."""

    vectors: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Regions:
    """Of B pictures: unit vectors (B, R, size) float32, and mask (B, R) bool, false at padding."""

    vectors: Tensor
    mask: Tensor


class Alignment(nn.Module):
    """Tokens of both sides → one number for every pair, without attention between them."""

    def __init__(self, width: int, size: int) -> None:
        """Builds it.

        Args:
            width: of the tokens.
            size: of the vectors that are compared.
        """
        super().__init__()
        self.words, self.regions = nn.Linear(width, size), nn.Linear(width, size)
        self.share = nn.Linear(width, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    @property
    def scale(self) -> Tensor:
        """How many logits a cosine of 1 is."""
        return self.log_scale.exp().clamp(max=HIGHEST_SCALE)

    def of_texts(self, tokens: Tensor, mask: Tensor) -> Words:
        """Tokens (B, T, width) and mask (B, T) bool."""
        shares = self.share(tokens).float().squeeze(-1).masked_fill(~mask, -1e4).softmax(-1)
        return Words(F.normalize(self.words(tokens).float(), dim=-1), shares)

    def of_pictures(self, tokens: Tensor, mask: Tensor) -> Regions:
        """Tokens (B, R, width) and mask (B, R) bool."""
        return Regions(F.normalize(self.regions(tokens).float(), dim=-1), mask)

    def table(self, texts: Words, pictures: Regions) -> Tensor:
        """Every text with every picture, (A, B), in logits."""
        cosines = torch.einsum("atd,brd->abtr", texts.vectors, pictures.vectors)
        best = self._best(cosines, pictures.mask[None, :, None])
        return self.scale * (best.float() * texts.shares[:, None]).sum(-1)

    def pairs(self, texts: Words, pictures: Regions, text_at: Tensor, image_at: Tensor) -> Tensor:
        """The P pairs of rows `text_at` and `image_at`, int64 (P,) → (P,), in logits."""
        cosines = texts.vectors[text_at] @ pictures.vectors[image_at].transpose(1, 2)
        best = self._best(cosines, pictures.mask[image_at][:, None])
        return self.scale * (best.float() * texts.shares[text_at]).sum(-1)

    def _best(self, cosines: Tensor, mask: Tensor) -> Tensor:
        barred = cosines.float().masked_fill(~mask, -1e4)
        return torch.logsumexp(barred * SHARPNESS, -1) / SHARPNESS
