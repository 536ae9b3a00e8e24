"""Captions and pictures of the training, as words and regions: what every pair is compared with.

A picture that fits every text, a hub, comes first for texts that are not its own. So what it scores with the bank's
captions is taken from its score: querybank normalisation (QB-Norm, arXiv 2112.12777), here of words and regions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.one_tower.alignment import Regions, Words
from brivl_search.encoders.one_tower.config import MatcherConfig


class Bank(nn.Module):
    """Words of K captions and regions of M pictures. Matrices, so that a checkpoint keeps a byte of each number."""

    words: Tensor
    shares: Tensor
    regions: Tensor

    def __init__(self, config: MatcherConfig) -> None:
        """An empty one, of a matcher's sizes."""
        super().__init__()
        self.sizes = config.bank_texts, config.bank_pictures
        self.register_buffer("words", torch.zeros(config.bank_texts * config.bank_words, config.align_size))
        self.register_buffer("shares", torch.zeros(config.bank_texts, config.bank_words))
        self.register_buffer("regions", torch.zeros(config.bank_pictures * config.bank_regions, config.align_size))

    def fill(self, texts: Words, pictures: Regions) -> None:
        """Keeps these: as many as there is room for; longer texts lose their last words.

        Raises:
            ValueError: a picture has padding among its regions, or there are too few of either.
        """
        if not bool(pictures.mask.all()):
            raise ValueError("pictures of a bank have equally many regions")
        room = self.shares.shape[1]
        vectors = F.pad(texts.vectors, (0, 0, 0, max(room - texts.vectors.shape[1], 0)))[:, :room]
        shares = F.pad(texts.shares, (0, max(room - texts.shares.shape[1], 0)))[:, :room]
        self.words.copy_(vectors.reshape(self.words.shape))
        self.shares.copy_(shares / shares.sum(1, keepdim=True))
        self.regions.copy_(pictures.vectors.reshape(self.regions.shape))

    def texts(self) -> Words:
        """The captions."""
        return Words(self.words.view(*self.shares.shape, -1), self.shares)

    def pictures(self) -> Regions:
        """The pictures."""
        found = self.regions.view(self.sizes[1], -1, self.regions.shape[1])
        return Regions(found, torch.ones(found.shape[:2], dtype=torch.bool, device=found.device))
