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
