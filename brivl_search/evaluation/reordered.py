"""The index's lists after a matcher has re-ordered the first of each, and the time that takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brivl_search.embedding.reranker import Reranker
from brivl_search.evaluation.pairs import Direction, Pairs
from brivl_search.evaluation.result import Latency, timed

_AT_ONCE = 256  # pairs; and pictures


class Reordered:
    """What a matcher makes of lists. Every picture is read once.

    Args:
        reranker: the matcher.
        pairs: what is compared.
        top: hits of each query that are re-ordered.
    """

    def __init__(self, reranker: Reranker, pairs: Pairs, top: int) -> None:
        self.reranker, self.pairs, self.top = reranker, pairs, top
        self._pictures: dict[int, Any] = {}

    def _read(self, images: Sequence[int]) -> list[Any | None]:
        new = [image for image in dict.fromkeys(images) if image not in self._pictures]
        for at in range(0, len(new), _AT_ONCE):
            some = new[at : at + _AT_ONCE]
            found = self.reranker.read([self.pairs.images[image] for image in some])
            self._pictures |= zip(some, found, strict=True)
        return [self._pictures[image] for image in images]

    def lists(self, way: Direction, lists: np.ndarray) -> np.ndarray:
        """int64 (q, depth) as they came, -1 padded → the same with the first `top` of each row in the matcher's order.

        Candidates whose pictures cannot be read keep their places.
        """
        out = lists.copy()
        for query in range(len(lists)):
            out[query, : self.top] = self._row(way, query, lists[query, : self.top])
        return out

    def _row(self, way: Direction, query: int, row: np.ndarray) -> np.ndarray:
        numbers = row[row >= 0]
        asked = int(way.query_numbers[query])
        if way.name == "text_to_image":
            pictures = self._read(numbers.tolist())
            texts = [self.pairs.texts[asked]] * len(numbers)
        else:
            pictures = self._read([asked]) * len(numbers)
            texts = [self.pairs.texts[number] for number in numbers.tolist()]
        cosines = way.candidates[numbers].astype(np.float32) @ way.queries[query].astype(np.float32)
        out = row.copy()
        out[: len(numbers)] = [numbers[one.candidate] for one in self.reranker.order(texts, pictures, cosines.tolist())]
        return out

    def latency(self, way: Direction, lists: np.ndarray) -> Latency:
        """Single queries, each reading its pictures again, as the first query after a start does."""
        chosen = np.linspace(0, len(lists) - 1, min(len(lists), 100)).astype(np.int64)

        def one(at: int) -> None:
            self._pictures.clear()
            self.reranker.forget()
            query = int(chosen[at])
            self._row(way, query, lists[query, : self.top])

        kept = dict(self._pictures)
        try:
            what = f"re-ordering {min(self.top, lists.shape[1])} hits, their pictures read again; beside the search"
            return timed(one, len(chosen), what)
        finally:
            self._pictures = kept
