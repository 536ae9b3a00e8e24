"""Near-identical results are folded together and none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.index import IndexReader, IndexWriter, Item, SearchResult
from brivl_search.search.dedupe import group

DIM = 24
KINDS, COPIES = 40, 6


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 kinds, each six times with a little noise, and one of them ninety times more under one content."""
    folder = tmp_path_factory.mktemp("index")
    rng = np.random.default_rng(0)
    kinds = np.linalg.qr(rng.standard_normal((KINDS, KINDS)))[0][:, :DIM]
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    with IndexWriter(folder, encoder_name="mini", fingerprint="f", dim=DIM, shard_rows=100) as w:
        noisy = np.repeat(kinds, COPIES, axis=0) + 0.01 * rng.standard_normal((KINDS * COPIES, DIM))
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        w.stage_vectors("image", [f"c{row}" for row in range(len(noisy))], noisy)
        for row in range(len(noisy)):
            w.put("image", Item(f"/{row // COPIES}/{row}", f"c{row}", record={"path": f"/{row // COPIES}/{row}"}))
        for number in range(90):
            w.put("image", Item(f"/7/copy{number}", "c42", record={"path": f"/7/copy{number}"}))
        w.commit()
    return folder


def groups(reader: IndexReader, query: np.ndarray, k: int, alike: float = 0.9) -> list[list[str]]:
    def search(queries: np.ndarray, depth: int) -> SearchResult:
        return reader.search("image", queries, depth)

    found = group(reader, "image", query, k, alike, search)
    for one in found:
        scores = [one.score, *(score for _, score in one.alike)]
        assert scores == sorted(scores, reverse=True)
        places = [one.row, *(place for place, _ in one.alike)]
        assert scores == pytest.approx([float(reader.vector("image", *place) @ query) for place in places], abs=2e-3)
    return [
        [reader.record("image", *place)["path"] for place in [one.row, *(p for p, _ in one.alike)]] for one in found
    ]


def test_each_kind_once_with_all_of_its_copies(index: Path) -> None:
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 3 * COPIES).astype(np.float32)
        found = groups(reader, query, KINDS + 5)
        assert sorted(len(one) for one in found) == [COPIES] * (KINDS - 1) + [COPIES + 90]
        assert sorted(path for one in found for path in one) == sorted(
            record["path"] for _, _, record in reader.records("image")
        )
        assert all(len({path.split("/")[1] for path in one}) == 1 for one in found)
        best = reader.search("image", query[None], 1)
        assert found[0][0] == reader.record("image", int(best.shards[0, 0]), int(best.rows[0, 0]))["path"]
        assert groups(reader, query, 5) == found[:5]


def test_copies_are_alike_at_any_threshold(index: Path) -> None:
    with IndexReader.open(index) as reader:
        place = reader.find("image", "/7/42")
        assert place is not None
        found = groups(reader, reader.vector("image", *place).astype(np.float32), 3, alike=1.0)
    assert len(found[0]) == 91  # the same content; noise of 0.01 is another picture


def test_a_limit_on_what_is_listed_changes_no_group(index: Path) -> None:
    """The leaders are the same: what is not listed is folded all the same."""
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 3 * COPIES).astype(np.float32)

        def search(queries: np.ndarray, depth: int) -> SearchResult:
            return reader.search("image", queries, min(depth, reader.count("image")))

        whole = group(reader, "image", query, KINDS + 5, 0.9, search)
        for most in (0, 1, 3, 50, 1000):
            some = group(reader, "image", query, KINDS + 5, 0.9, search, most)
            assert [one.row for one in some] == [one.row for one in whole]
            for one, full in zip(some, whole, strict=True):
                assert len(one.alike) == min(most, len(full.alike)) and set(one.alike) <= set(full.alike)


def test_rows_that_are_all_alike_cost_a_bounded_number_of_searches(index: Path) -> None:
    with IndexReader.open(index) as reader:
        query = reader.vector("image", 0, 0).astype(np.float32)
        depths = []

        def search(queries: np.ndarray, depth: int) -> SearchResult:
            depths.append(depth)
            return reader.search("image", queries, min(depth, reader.count("image")))

        (one,) = group(reader, "image", query, 3, -1.0, search, 10)
        assert len(one.alike) == 10
    assert max(depths) <= 512 and len(depths) < 10
