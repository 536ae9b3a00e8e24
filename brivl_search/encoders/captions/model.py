"""The decoder: BERT's layers, causal, each with attention to a picture; words in and out share their embedding.

A picture is its regions, embedded as UNITER does (arXiv 1909.11740), and one more token for its unit vector. Words
attend to those before them and to the picture. The first token says the language.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.one_tower.model import PLACE, Layer, places, some_features, some_regions, start_as_bert

Cache = list[tuple[Tensor, Tensor]]
"""Of each layer: keys and values of the tokens so far, both (B · N, heads, T, width / heads)."""


@dataclass(frozen=True)
class Memory:
    """B pictures as the decoder reads them.

    Attributes:
        layers: keys and values for each layer, both (B, heads, R + 1, width / heads).
        mask: bool (B, R + 1), false where there is no region.
    """

    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor


class DecoderLayer(Layer):
    """BERT's layer with attention to a picture between its two halves, as BERT's decoders have it."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__(width, heads, feedforward, dropout)
        self.across_query, self.across_key, self.across_value, self.across_out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.across_norm = nn.LayerNorm(width, eps=1e-12)

    def read_picture(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a picture's tokens (B, R, width), each (B, heads, R, width / heads)."""
        return self._split(self.across_key(tokens)), self._split(self.across_value(tokens))

    def write(
        self, x: Tensor, picture: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens (B, N, T, width) of N captions for each of B pictures → the same, and keys and values of all so far.

        Args:
            x: the tokens; with `past`, the newest one alone.
            picture, mask: of `Memory`.
            past: keys and values of the tokens before.
        """
        pictures, captions, count, width = x.shape
        rate = self.rate if self.training else 0.0
        own = x.reshape(pictures * captions, count, width)
        keys, values = self.read(own)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        found = F.scaled_dot_product_attention(
            self._split(self.query(own)), keys, values, dropout_p=rate, is_causal=past is None
        )
        own = self.norm1(own + self.dropout(self.out(found.transpose(1, 2).flatten(2))))
        # All captions of a picture ask it together.
        asked = own.reshape(pictures, captions * count, width)
        found = F.scaled_dot_product_attention(
            self._split(self.across_query(asked)), *picture, attn_mask=mask[:, None, None], dropout_p=rate
        )
        asked = self.across_norm(asked + self.dropout(self.across_out(found.transpose(1, 2).flatten(2))))
        asked = self.norm2(asked + self.dropout(self.fc2(F.gelu(self.fc1(asked)))))
        return asked.reshape(x.shape), (keys, values)


class Captioner(nn.Module):
    """Regions, vectors and the words so far → a logit for every next word.

    Attributes:
        kept: int64 (words,), the tokenizer's id of each word it knows; 0 is [UNK], 1 the end.
    """

    UNKNOWN, END = 0, 1

    kept: Tensor

    def __init__(self, config: CaptionConfig) -> None:
        """Builds it with random weights."""
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("kept", torch.zeros(config.words, dtype=torch.long))
        self.words, self.starts = nn.Embedding(config.words, width), nn.Embedding(len(config.starts), width)
        self.positions = nn.Embedding(config.max_length, width)
        self.text_norm = nn.LayerNorm(width, eps=1e-12)
        self.feature, self.feature_norm = nn.Linear(config.region_size, width), nn.LayerNorm(width, eps=1e-12)
        self.place, self.place_norm = nn.Linear(PLACE, width), nn.LayerNorm(width, eps=1e-12)
        self.vector, self.vector_norm = nn.Linear(config.vector_size, width), nn.LayerNorm(width, eps=1e-12)
        self.image_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        sizes = (width, config.heads, config.feedforward, config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(config.layers))
        self.word_bias = nn.Parameter(torch.zeros(config.words))
        self.apply(start_as_bert)

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def look(self, features: Tensor, boxes: Tensor, vectors: Tensor, mask: Tensor | None = None) -> Memory:
        """Pictures → what the layers read; once for each picture.

        Args:
            features: float (B, R, region_size).
            boxes: float32 (B, R, 4) or (R, 4), as shares of width and height.
            vectors: float (B, vector_size), unit length.
            mask: bool (B, R), false at padding; None: there is none.
        """
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        if self.training:
            features = some_features(features, self.config.feature_dropout)
            mask = some_regions(mask, self.config.region_dropout)
        regions = self.feature_norm(self.feature(features)) + self.place_norm(self.place(places(boxes)))
        whole = self.vector_norm(self.vector(vectors))[:, None]
        tokens = self.dropout(self.image_norm(torch.cat([regions, whole], 1)))
        there = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        return Memory([layer.read_picture(tokens) for layer in self._layers()], there)

    def first(self, starts: Tensor) -> Tensor:
        """Embedded first tokens of captions: int64 (…,), numbers of `config.starts` → (…, width)."""
        found: Tensor = self.starts(starts)
        return found

    def write(self, tokens: Tensor, memory: Memory, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Embedded tokens (B, N, T, width) of N captions for each picture → hidden states of that shape, and the cache.

        Args:
            tokens: of `first` and `words`; with `past`, T is 1.
            memory: of the pictures.
            past: what the last call gave, for the tokens before.
        """
        before = past[0][0].shape[2] if past else 0
        place = torch.arange(before, before + tokens.shape[2], device=tokens.device)
        x = self.dropout(self.text_norm(tokens + self.positions(place)))
        cache: Cache = []
        for number, layer in enumerate(self._layers()):
            x, own = layer.write(x, memory.layers[number], memory.mask, past[number] if past else None)
            cache.append(own)
        return x, cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, width) → a logit for each next word (…, words), float32."""
        return F.linear(hidden, self.words.weight, self.word_bias).float()

    def forward(self, starts: Tensor, words: Tensor, memory: Memory) -> Tensor:
        """Hidden states before each word of given captions and before their end.

        Args:
            starts: int64 (B, N).
            words: int64 (B, N, T), with anything behind a caption's end.
            memory: of the B pictures.

        Returns:
            (B, N, T + 1, width).
        """
        tokens = torch.cat([self.first(starts)[:, :, None], self.words(words)], 2)
        return self.write(tokens, memory)[0]
