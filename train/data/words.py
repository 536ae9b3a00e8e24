"""What training needs of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Words(Protocol):
    """Texts → token ids, as an architecture reads them.

    Attributes:
        max_length: most tokens of a text.
        pad_id, start_id, end_id: special tokens; None: there is none.
        mask_id: the token that a dropped one becomes; None: there is none.
    """

    max_length: int
    pad_id: int
    mask_id: int | None
    start_id: int | None
    end_id: int | None

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most `max_length`."""
        ...

    def batch(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids → ids int64 (B, T) and mask bool (B, T), true where the tower looks."""
        ...

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that the vocabulary does not have, each once."""
        ...
