"""Hard negatives: a queue of the towers' vectors that remembers each entry's pair, and the draw inside a batch.

The queue of cross-modal MoCo holds vectors alone: they are all that its loss needs. A matcher has to read a negative's
picture and text. So an entry keeps which photo and which caption it was, and both are read again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairQueue(nn.Module):
    """A ring of the last `size` pairs: both vectors, the photo and the caption; empty slots have photo -1."""

    images: Tensor
    texts: Tensor
    photos: Tensor
    captions: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, dim))
        self.register_buffer("texts", torch.zeros(size, dim))
        self.register_buffer("photos", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("captions", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("head", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, images: Tensor, texts: Tensor, photos: Tensor, captions: Tensor) -> None:
        """Writes B pairs over the oldest; of more than the ring holds, the last stay."""
        size = len(self.photos)
        slots = (torch.arange(len(photos), device=self.head.device) + self.head) % size
        kept = slice(max(len(photos) - size, 0), None)
        for ring, new in ((self.images, images), (self.texts, texts), (self.photos, photos), (self.captions, captions)):
            ring[slots[kept]] = new[kept].to(ring.dtype)
        self.head.fill_((int(self.head) + len(photos)) % size)

    @torch.no_grad()
    def recall(self, images: Tensor, texts: Tensor, photos: Tensor, count: int, temperature: float) -> Tensor:
        """Entries that the towers take for partners of B pairs, and that are not: slots int64, each once.

        For every text, `count` entries are drawn by softmax(cosine of the text and the entry's picture / τ); for every
        picture by that of the entry's text. An entry of the pair's own photo is never drawn.
        """
        wrong = (self.photos[None] == photos[:, None]) | (self.photos < 0)
        scores = torch.cat([texts @ self.images.T, images @ self.texts.T])
        drawn = draw(scores, wrong.repeat(2, 1), count, temperature)
        return drawn[drawn >= 0].unique()  # type: ignore[no-untyped-call, no-any-return]


def draw(scores: Tensor, barred: Tensor, count: int, temperature: float) -> Tensor:
    """`count` columns of each row, drawn without replacement by softmax(score / τ); -1 where a row has too few.

    Args:
        scores: float (B, C), cosines.
        barred: bool (B, C), what is never drawn.
    """
    # The highest of log p + Gumbel noise are such a draw.
    noise = -torch.empty_like(scores).exponential_().log()
    keys = (scores / temperature + noise).masked_fill(barred, -torch.inf)
    best = keys.topk(min(count, scores.shape[1]), 1)
    return best.indices.masked_fill(best.values == -torch.inf, -1)
