"""Rows that stand for a collection: which they are, and that an index is asked for them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.index import IndexReader
from brivl_search.search import live, sample
from brivl_search.search.engine import Engine
from brivl_search.search.filters import Filter
from brivl_search.search.sample import vectors_of


class _Blocks:
    """A reader of two shards, 1,000 rows and 3,000; every other row of the second is removed."""

    class info:
        class encoder:
            dim = 4

    def blocks(self, modality: str) -> list[tuple[np.ndarray, np.ndarray | None]]:
        one, two = np.arange(1000), np.arange(1000, 4000)
        return [(self._of(one), None), (self._of(two), two % 2 == 0)]

    @staticmethod
    def _of(rows: np.ndarray) -> np.ndarray:
        return np.repeat((rows / 4000).astype(np.float16)[:, None], 4, 1)


def test_a_small_index_stands_for_itself(index: Path) -> None:
    with IndexReader.open(index) as reader:
        found = vectors_of(reader, "image")
        assert found.shape == (30, 32) and found.dtype == np.float32
        whole = np.concatenate([vectors for vectors, _, _ in reader.vectors("image")])
        np.testing.assert_array_equal(found, whole.astype(np.float32))
        assert len(vectors_of(reader, "text")) == reader.count("text")


def test_runs_lie_evenly_over_all_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "ROWS", 400)
    found = vectors_of(_Blocks(), "image")[:, 0] * 4000  # type: ignore[arg-type]
    first, second = found[found < 1000], found[found >= 1000]
    assert 150 <= len(first) <= 170 and 230 <= len(second) <= 250  # 1,000 and 1,500 live rows
    assert found.min() < 10 and found.max() > 3960


def test_of_an_index_that_is_mostly_removed_no_live_row_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = _Blocks()
    few = np.zeros(1000, bool)
    few[[3, 500, 999]] = True
    monkeypatch.setattr(blocks, "blocks", lambda modality: [(blocks._of(np.arange(1000)), few)])
    np.testing.assert_allclose(vectors_of(blocks, "image")[:, 0] * 4000, [3, 500, 999], rtol=2e-3)  # type: ignore[arg-type]


def test_it_is_taken_once_and_a_filter_counts_what_it_lets_through(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def counting(reader: IndexReader, modality: str) -> np.ndarray:
        taken.append(modality)
        return vectors_of(reader, modality)  # type: ignore[arg-type]

    monkeypatch.setattr(live, "vectors_of", counting)
    engine = Engine(index)
    reader = engine.reader
    rings = engine.allowed(reader, "image", Filter.of(glob=["*-ring.png"]))
    assert engine.sample(reader, "image", None).rows == 30 and engine.sample(reader, "image", rings).rows == 6
    assert engine.sample(reader, "text", None).rows == reader.count("text")
    assert taken == ["image", "text"]
