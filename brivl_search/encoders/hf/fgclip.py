"""FG-CLIP 2: SigLIP 2's towers for pictures in their own aspect ratio, and two ways of reading texts.

A text of at most 64 tokens takes the short walk, a longer one the long walk of 196 tokens (`walks` has what they
compute). ?walk=short or ?walk=long in the name fixes one for all texts. No program code of the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Precision
from brivl_search.encoders.hf.encoder import TransformersEncoder
from brivl_search.encoders.hf.files import FoundModel
from brivl_search.encoders.runtimes.tokens import FastTokens, Reading

if TYPE_CHECKING:
    from brivl_search.encoders.runtimes.choice import Side
    from brivl_search.encoders.runtimes.graph import Exportable
    from brivl_search.encoders.settings import Settings


class FgClipEncoder(TransformersEncoder):
    """Images and texts → unit vectors with FG-CLIP 2 (see `brivl_search.encoders.base.LoadedEncoder`)."""

    def __init__(
        self, found: FoundModel, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 64
    ) -> None:
        """As `TransformersEncoder`."""
        self.walk = found.settings.walk
        super().__init__(found, device=device, precision=precision, batch_size=batch_size)

    def _walk_settings(self, settings: Settings) -> dict[str, Any]:
        return {"walk": settings.walk or "by length", "long_length": self.facts.long_length}

    @property
    def _limit(self) -> int:
        """Most tokens of any text."""
        return self.facts.max_length if self.walk == "short" else self.facts.long_length

    def tokenized(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """As `TransformersEncoder`; the rows are as long as the walk takes, the long one if any text needs it."""
        if isinstance(self.tokenizer, FastTokens):
            return {"input_ids": self.tokenizer.batch(texts)["input_ids"]}
        with self._tokenizing:
            found = self.tokenizer(
                list(texts), truncation=True, max_length=self._limit, return_attention_mask=False, verbose=False
            )
            wide = self._limit
            if self.walk is None and max(map(len, found["input_ids"]), default=0) <= self.facts.max_length:
                wide = self.facts.max_length
            padded = self.tokenizer.pad(
                {"input_ids": found["input_ids"]},
                padding="max_length",
                max_length=wide,
                return_attention_mask=False,
                return_tensors="np",
            )
        return {"input_ids": padded["input_ids"]}

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        long = self._is_long(texts)
        for walk in (False, True):  # a batch is of one walk
            rows = np.flatnonzero(long == walk)
            if len(rows):
                out[rows] = super()._encode_texts([texts[int(at)] for at in rows])
        return out

    def _is_long(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        if self.walk is not None or not texts:
            return np.full(len(texts), self.walk == "long")
        return np.array([length > self.facts.max_length for length in self._lengths(texts)])

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, however many are read."""
        spelled = self.spelled(texts)
        with self._tokenizing:
            return [len(ids) for ids in self.tokenizer(spelled, truncation=False, verbose=False)["input_ids"]]

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return [max(length - self._limit, 0) for length in self._lengths(texts)] if texts else []

    def save_tokens(self, folder: Path) -> Reading | None:
        reading = super().save_tokens(folder)
        if reading is None:
            return None
        return replace(reading, length=self._limit, short=self.facts.max_length if self.walk is None else None)

    def exportable(self, side: Side) -> Exportable:
        found = super().exportable(side)
        if side == "image" or self.walk is not None:
            return found
        return replace(found, more=[self._short_example])

    def _short_example(self, n: int) -> tuple[Any]:
        import torch

        return (torch.from_numpy(self.tokenized([f"dog {at}" for at in range(n)])["input_ids"]),)
