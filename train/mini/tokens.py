"""Texts behind the frozen layers of a text tower, kept on disk, so that its last layers can learn at little cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from rich.progress import Progress
from torch import Tensor, nn

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
from brivl_search.encoders.brivl.text_tower import TextTower


@dataclass(frozen=True)
class Tokens:
    """Token vectors of texts.

    Attributes:
        vectors: float16 (all tokens, width), one text after the other.
        starts: int (texts + 1,), where each begins; the last is where the last ends.
    """

    vectors: np.ndarray
    starts: np.ndarray

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(N, T, width) float32, shorter texts with zeros at their end, and (N, T) bool, true for tokens."""
        parts = [self.vectors[self.starts[row] : self.starts[row + 1]] for row in rows]
        longest = max(map(len, parts))
        padded = np.zeros((len(parts), longest, self.vectors.shape[1]), np.float32)
        mask = np.zeros((len(parts), longest), bool)
        for at, part in enumerate(parts):
            padded[at, : len(part)], mask[at, : len(part)] = part, True
        return torch.from_numpy(padded), torch.from_numpy(mask)


class LastLayers(nn.Module):
    """The last layers of a text tower's BERT, and its head: what `Tokens` holds → unit vectors."""

    def __init__(self, tower: TextTower, count: int) -> None:
        """`count`: of the layers; they stay the tower's own."""
        super().__init__()
        layers = tower.backbone.encoder.layer
        self.layers, self.head = layers[len(layers) - count :], tower.head

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width) and (N, T) bool → unit vectors (N, dim), float32."""
        for layer in self.layers:
            tokens = layer(tokens, mask[:, None, None, :])
        vectors: Tensor = self.head(tokens, mask)
        return vectors

    @torch.no_grad()
    def embed(self, tokens: Tokens, rows: Sequence[int], batch: int = 512) -> np.ndarray:
        """Vectors (rows, dim) without dropout, in batches of like length."""
        learning, out = self.training, np.empty((len(rows), self.head.fc2.out_features), np.float32)
        self.eval()
        lengths = np.diff(tokens.starts)[np.asarray(rows, dtype=int)]
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            out[some] = self(*tokens.batch([rows[at] for at in some])).numpy()
        self.train(learning)
        return out


class Texts:
    """Vectors of all texts of a run: of a tower that stays, or whose last layers learn.

    Attributes:
        last: the layers behind `tokens`.
        bank: float32 (texts, dim), what is known of each; while the layers learn, as they were when it was last asked.
        learns: whether vectors that are asked for have gradients.
    """

    def __init__(self, tokens: Tokens, last: LastLayers, bank: np.ndarray, *, learns: bool) -> None:
        self.tokens, self.last, self.learns = tokens, last, learns
        self.bank = torch.from_numpy(bank)

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """Vectors (N, dim) of these texts; with gradients and newly made where the layers learn."""
        if not self.learns or not len(rows):
            return self.bank[list(rows)]
        found: Tensor = self.last(*self.tokens.batch(rows))
        self.bank[list(rows)] = found.detach().float()
        return found.float()


def cached_tokens(checkpoint: FolderCheckpoint, texts: Sequence[str], last: int, cache: Path, *, bf16: bool) -> Tokens:
    """What the text tower's BERT gives for texts before its `last` layers; made once."""
    key = hashlib.sha256(json.dumps([checkpoint.fingerprint, last, list(texts)]).encode()).hexdigest()[:12]
    data, starts = cache / f"tokens-{key}.npy", cache / f"tokens-{key}-starts.npy"
    if not starts.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        tower = TextTower(checkpoint.config.text, checkpoint.config.dim)
        checkpoint.fill("text", tower)
        tower.eval()
        tokenizer = checkpoint.tokenizer()
        ids = tokenizer.ids(list(texts))
        ends = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
        width, depth = int(tower.backbone.config.hidden_size), len(tower.backbone.encoder.layer)
        out = open_memmap(data, mode="w+", dtype=np.float16, shape=(int(ends[-1]), width))
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16), Progress() as progress:
            task = progress.add_task("texts", total=len(order))
            for start in range(0, len(order), 256):
                rows = order[start : start + 256]
                padded, mask = (torch.from_numpy(a) for a in tokenizer.batch([ids[i] for i in rows]))
                states = tower.backbone(input_ids=padded, attention_mask=mask.long(), output_hidden_states=True)
                kept = states.hidden_states[depth - last].half().numpy()
                for row, vectors in zip(rows, kept, strict=True):
                    out[ends[row] : ends[row + 1]] = vectors[: len(ids[row])]
                progress.update(task, advance=len(rows))
        out.flush()
        np.save(starts, ends)
    return Tokens(np.load(data, mmap_mode="r"), np.load(starts))
