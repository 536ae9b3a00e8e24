"""The matcher: UNITER's embeddings, BERT layers and heads (arXiv 1909.11740), and a cheaper form of the same layers.

A picture is its regions: features of the image tower's CNNs and a 7-d place. Each goes through a linear layer and a
LayerNorm; both are summed with a type embedding. A text is BERT's sum of word, position and type. Layers are BERT's,
with the norm after the sum. The score of a pair is one logit, read from [CLS]. With `align_size` it is that
logit and the alignment of words and regions (`alignment.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.one_tower.alignment import Alignment
from brivl_search.encoders.one_tower.bank import Bank
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.masked import MaskedRegions

_WITH_BANK = 16  # texts or pictures that are compared with a bank at once: 512 of it take 60 MB for each product
PLACE = 7  # x1, y1, x2, y2, width, height, area


def places(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as shares of width and height, x1, y1, x2, y2 → UNITER's 7-d places (..., 7)."""
    wide, high = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return torch.cat([boxes, torch.stack([wide, high, wide * high], -1)], -1)


def some_features(features: Tensor, rate: float) -> Tensor:
    """Features (B, R, C) with this share of each picture's numbers dropped, the same ones in all its regions."""
    if not rate:
        return features
    drop = torch.rand(len(features), 1, features.shape[2], device=features.device) >= rate
    return features * (drop / (1 - rate)).to(features.dtype)


def some_regions(mask: Tensor, rate: float) -> Tensor:
    """A mask bool (B, R) with this share of each picture's regions dropped; at least one stays."""
    if not rate:
        return mask
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= rate)
    return torch.where(kept.any(1, keepdim=True), kept, mask)


@dataclass(frozen=True)
class Side:
    """One side of pairs: tokens (B, T, width) and mask (B, T) bool, false at padding."""

    tokens: Tensor
    mask: Tensor

    def rows(self, at: Tensor) -> Side:
        """Those of `at`, int64 (P,)."""
        return Side(self.tokens[at], self.mask[at])


class Layer(nn.Module):
    """BERT's layer. What `queries` returns may be fewer tokens than those that are read."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.fc1, self.fc2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens (B, T, width), each (B, heads, T, width / heads)."""
        return self._split(self.key(tokens)), self._split(self.value(tokens))

    def forward(
        self, tokens: Tensor, mask: Tensor, beside: tuple[Tensor, Tensor] | None = None, first: int | None = None
    ) -> Tensor:
        """Tokens (B, T, width) → the same, or (B, first, width).

        Args:
            tokens: they attend to each other.
            mask: (B, T) bool; with `beside`, (B, T + R). Nobody attends where it is false.
            beside: keys and values of R more tokens, which are read and not rewritten.
            first: compute the first tokens only.
        """
        asking = tokens if first is None else tokens[:, :first]
        keys, values = self.read(tokens)
        if beside is not None:
            keys, values = torch.cat([keys, beside[0]], 2), torch.cat([values, beside[1]], 2)
        found = F.scaled_dot_product_attention(
            self._split(self.query(asking)), keys, values, attn_mask=mask[:, None, None],
            dropout_p=self.rate if self.training else 0.0,
        )  # fmt: skip
        x = self.norm1(asking + self.dropout(self.out(found.transpose(1, 2).flatten(2))))
        said: Tensor = self.norm2(x + self.dropout(self.fc2(F.gelu(self.fc1(x)))))
        return said


class OneTower(nn.Module):
    """Texts and regions → a logit for every pair that is asked for."""

    def __init__(self, config: MatcherConfig) -> None:
        """Builds it with random weights."""
        super().__init__()
        self.config = config
        width = config.width
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_length, width)
        self.types = nn.Embedding(2, width)  # text, picture
        self.text_norm = nn.LayerNorm(width, eps=1e-12)
        self.feature, self.feature_norm = nn.Linear(config.region_size, width), nn.LayerNorm(width, eps=1e-12)
        self.place, self.place_norm = nn.Linear(PLACE, width), nn.LayerNorm(width, eps=1e-12)
        self.image_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        sizes = (width, config.heads, config.feedforward, config.dropout)
        self.text_layers = nn.ModuleList(Layer(*sizes) for _ in range(config.text_layers))
        self.joint_layers = nn.ModuleList(Layer(*sizes) for _ in range(config.joint_layers))
        self.pooler, self.match = nn.Linear(width, width), nn.Linear(width, 1)
        self.word_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12))
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.masked = MaskedRegions(width, config.region_size) if config.masked_regions else None
        self.align = Alignment(width, config.align_size) if config.align_size else None
        self.apply(start_as_bert)
        self.bank = Bank(config) if config.bank_texts else None

    def texts(self, ids: Tensor, mask: Tensor) -> Side:
        """Token ids int64 (B, T) and mask bool (B, T) → what joint layers take; once for each text."""
        place = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.text_norm(self.words(ids) + self.positions(place) + self.types.weight[0]))
        for layer in self.text_layers:
            x = layer(x, mask)
        return Side(x, mask)

    def images(self, features: Tensor, boxes: Tensor, mask: Tensor | None = None) -> Side:
        """Regions → what joint layers take; once for each picture.

        Args:
            features: float (B, R, region_size).
            boxes: float32 (B, R, 4) or (R, 4), as shares of width and height.
            mask: bool (B, R), false at padding; None: there is none.
        """
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        if self.training:
            features = some_features(features, self.config.feature_dropout)
            mask = some_regions(mask, self.config.region_dropout)
        x = self.feature_norm(self.feature(features)) + self.place_norm(self.place(places(boxes)))
        return Side(self.dropout(self.image_norm(x + self.types.weight[1])), mask)

    def joint(self, texts: Side, images: Side, text_at: Tensor, image_at: Tensor, first: int | None = 1) -> Tensor:
        """Joint layers over P pairs → their text tokens (P, T, width), or the first of them.

        Where all see all, more than T are the regions' (`first` = T + R is the whole sequence).

        Args:
            texts, images: sides of the pairs.
            text_at, image_at: int64 (P,), the rows of each pair.
            first: tokens that are wanted; None: all of the text.
        """
        x = texts.tokens[text_at]
        count, last = x.shape[1], len(self.joint_layers) - 1
        mask = torch.cat([texts.mask[text_at], images.mask[image_at]], 1)
        if not self.config.one_way:
            x = torch.cat([x, images.tokens[image_at]], 1)
        for number, layer in enumerate(self.joint_layers):
            beside = None
            if self.config.one_way:
                assert isinstance(layer, Layer)
                keys, values = layer.read(images.tokens)
                beside = keys[image_at], values[image_at]
            x = layer(x, mask, beside, first=(first or count) if number == last else None)
        return x

    def logits(self, texts: Side, images: Side, text_at: Tensor, image_at: Tensor) -> Tensor:
        """One matching logit for each pair, float32 (P,)."""
        start = self.joint(texts, images, text_at, image_at)[:, 0]
        found: Tensor = self.match(torch.tanh(self.pooler(start))).squeeze(-1).float()
        if self.align is None:
            return found
        words = self.align.of_texts(texts.tokens, texts.mask)
        return found + self.align.pairs(words, self.align.of_pictures(images.tokens, images.mask), text_at, image_at)

    def text_hubs(self, texts: Side) -> Tensor:
        """How well each text fits anything: float32 (B,), log Σ exp of its logits with the bank's pictures.

        Raises:
            ValueError: the matcher has no bank.
        """
        align, bank = self._compared()
        found = []
        for at in range(0, len(texts.tokens), _WITH_BANK):
            words = align.of_texts(texts.tokens[at : at + _WITH_BANK], texts.mask[at : at + _WITH_BANK])
            found.append(align.table(words, bank.pictures()).logsumexp(1))
        return torch.cat(found)

    def image_hubs(self, images: Side) -> Tensor:
        """As `text_hubs`, of pictures with the bank's captions."""
        align, bank = self._compared()
        found = []
        for at in range(0, len(images.tokens), _WITH_BANK):
            regions = align.of_pictures(images.tokens[at : at + _WITH_BANK], images.mask[at : at + _WITH_BANK])
            found.append(align.table(bank.texts(), regions).logsumexp(0))
        return torch.cat(found)

    def _compared(self) -> tuple[Alignment, Bank]:
        if self.align is None or self.bank is None:
            raise ValueError("this matcher has no bank")
        return self.align, self.bank

    def region_features(self, tokens: Tensor) -> Tensor:
        """Tokens (N, width) of `joint`, of masked regions → what their features were, (N, region_size).

        Raises:
            ValueError: the matcher has no head for it.
        """
        if self.masked is None:
            raise ValueError("this matcher has no head for masked regions: set matcher.masked_regions")
        found: Tensor = self.masked(tokens, self.feature.weight)
        return found

    def word_logits(self, tokens: Tensor) -> Tensor:
        """Tokens (N, width) of `joint` → a logit for each word (N, vocab_size), by the words' own embeddings."""
        return F.linear(self.word_head(tokens), self.words.weight, self.word_bias)


def start_as_bert(module: nn.Module) -> None:
    """BERT's first weights."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
