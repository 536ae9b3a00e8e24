"""What a classifier sees in a picture, said in the words of the text tower.

CNNs that come from ImageNet tell its classes apart much better than a tower does that was trained with a few thousand
captions. So an image tower may keep their classifier, and a vector for each class, which begins as the text tower's
vector of the class's name. What is seen is the mean of these vectors, each counted by its class's probability. It is
longer the surer the classifier is, because vectors of different classes cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Seen(nn.Module):
    """Feature maps → what is added to a picture's vector."""

    def __init__(self, channels: int, classes: int, dim: int, backbones: Sequence[int]) -> None:
        """`channels`: of the maps that are classified together; `backbones`: which of the tower's those are."""
        super().__init__()
        self.backbones = tuple(backbones)
        self.classifier = nn.Linear(channels, classes)
        self.names = nn.Linear(classes, dim, bias=False)  # its columns are the classes' vectors
        self.weight = nn.Parameter(torch.tensor(0.5))

    def logits(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C, H, W) of all backbones → float32 (B, classes)."""
        pooled = torch.cat([maps[at].flatten(2).float().mean(2) for at in self.backbones], 1)
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.classifier(pooled)
        return logits

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C, H, W) of all backbones → float32 (B, dim)."""
        logits = self.logits(maps)
        with torch.autocast(logits.device.type, enabled=False):
            said: Tensor = self.weight * self.names(logits.softmax(1))
        return said
