"""The end of both towers: self-attention over tokens, masked mean, two-layer ReLU MLP, L2 norm (arXiv 2110.14378)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.config import HeadConfig


def masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens whose mask is true.

    Args:
        tokens: (B, T, D).
        mask: (B, T) bool, true for real tokens; None: all are real. A row with no real token gives zeros.

    Returns:
        (B, D).
    """
    if mask is None:
        return tokens.mean(1)
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


class TowerHead(nn.Module):
    """Tokens (B, T, width) and a mask (B, T) → unit vectors (B, dim), float32."""

    def __init__(self, width: int, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.normalize_tokens = config.normalize_tokens
        self.attention: nn.TransformerEncoder | None = None
        if config.layers:
            layer = nn.TransformerEncoderLayer(
                width, config.heads, config.feedforward, config.dropout, activation="relu", batch_first=True
            )
            self.attention = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        hidden = config.hidden or dim
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(config.mlp_dropout)

    def pool(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The input of the MLP: tokens (B, T, width) → (B, width)."""
        if self.normalize_tokens:
            tokens = F.normalize(tokens, dim=-1)
        if self.attention is not None:
            tokens = self.attention(tokens, src_key_padding_mask=None if mask is None else ~mask)
        return masked_mean(tokens, mask)

    def hidden(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """All but the last layer: tokens (B, T, width) → (B, hidden), no value below 0."""
        return self._first_layer(self.pool(tokens, mask))

    def _first_layer(self, pooled: Tensor) -> Tensor:
        return F.relu(self.fc1(self.dropout(pooled)))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.finish(self.pool(tokens, mask))

    def finish(self, pooled: Tensor) -> Tensor:
        """The MLP: output of `pool` → unit vectors (B, dim), float32."""
        vectors = self.fc2(self.dropout(self._first_layer(pooled)))
        with torch.autocast(vectors.device.type, enabled=False):
            return F.normalize(vectors.float(), dim=-1)
