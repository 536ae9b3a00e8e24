"""One order of all rows, by score and then by key: for every k, on every page, with any filter, after a compaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brivl_search.index import IndexReader, IndexWriter, Item, ivfpq
from tests.index.test_columns import without_columns

DIM, EQUAL = 16, 400


def vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def shuffled(rows: int) -> list[str]:
    return [f"key {number:05}" for number in np.random.default_rng(1).permutation(rows).tolist()]


def build(folder: Path, rows: NDArray[np.float32], keys: list[str], commits: int = 1, **options: Any) -> Path:
    """An index whose rows came in several commits, so that keys do not ascend with rows."""
    for part in np.array_split(np.arange(len(keys)), commits):
        with IndexWriter(folder, encoder_name="e", fingerprint="f", dim=DIM, **options) as w:
            w.stage_vectors("image", [f"c{number}" for number in part], rows[part])
            for number in part.tolist():
                w.put("image", Item(keys[number], f"c{number}", record={"path": keys[number]}))
            w.commit()
    return folder


def hits(reader: IndexReader, query: NDArray[np.float32], k: int, **options: Any) -> list[tuple[float, str]]:
    found = reader.search("image", query[None], k, **options)
    places = zip(found.shards[0].tolist(), found.rows[0].tolist(), found.scores[0].tolist(), strict=True)
    return [(score, reader.entry("image", shard, row)["key"]) for shard, row, score in places if row >= 0]


def in_order(found: list[tuple[float, str]]) -> bool:
    return found == sorted(found, key=lambda hit: (-hit[0], hit[1]))


@pytest.fixture(scope="module", params=["exact", "ivfpq", "pq8"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 equal rows that come first, 50 that share another vector, and others, in several shards and commits."""
    ivfpq.faiss_module().omp_set_num_threads(1)
    rows = vectors(3000)
    rows[np.random.default_rng(2).choice(3000, EQUAL, replace=False)] = rows[0]
    rows[np.random.default_rng(3).choice(3000, 50, replace=False)] = rows[1]
    kind = {} if request.param == "exact" else {"codec": "pq8" if request.param == "pq8" else "fastscan"}
    options = {"index_type": "exact" if request.param == "exact" else "ivfpq", "shard_rows": 1200, **kind}
    return build(tmp_path_factory.mktemp("index"), rows, shuffled(3000), 3, **options)


KS = (1, 5, 10, 32, 33, 100, 399, 400, 401, 440, 500)


@pytest.mark.parametrize("given", [{}, {"exact": True}, {"nprobe": 1, "rerank": 20}], ids=str)
def test_every_k_begins_like_a_larger_one(index: Path, given: dict[str, Any]) -> None:
    with IndexReader.open(index) as reader:
        for asked in vectors(3000)[:2]:
            everything = hits(reader, asked, 3000, exact=True)
            assert len(everything) == 3000 and in_order(everything)
            tied = [hit for hit in everything if hit[0] == everything[0][0]]
            for k in KS:
                found = hits(reader, asked, k, **given)
                assert in_order(found) and len(found) == k
                assert found[: len(tied)] == tied[:k]
                if given.get("exact"):
                    assert found == everything[:k]


def test_ties_in_the_middle(index: Path) -> None:
    """The border falls into a group of equal rows that do not come first."""
    asked = vectors(3000)[0] + 0.9 * vectors(3000)[1]
    with IndexReader.open(index) as reader:
        everything = hits(reader, asked, 3000, exact=True)
        for k in range(1, 470, 13):
            assert hits(reader, asked, k, exact=True) == everything[:k]
            found = hits(reader, asked, k, nprobe=10_000, rerank=1600)
            assert in_order(found)
            assert found == everything[:k]


def test_with_a_filter(index: Path) -> None:
    asked = vectors(3000)[0]
    with IndexReader.open(index) as reader:
        rng = np.random.default_rng(5)
        allow = [rng.random(shard.rows) < 0.5 for shard in reader.info.image.shards]
        everything = hits(reader, asked, 3000, exact=True, allow=allow)
        assert in_order(everything)
        for k in (1, 5, 150, 400):
            found = hits(reader, asked, k, allow=allow)
            tied = [hit for hit in everything if hit[0] == everything[0][0]]
            assert found[: len(tied)] == tied[:k] and in_order(found)


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_a_compaction_and_older_shards_change_nothing(tmp_path: Path, kind: str) -> None:
    ivfpq.faiss_module().omp_set_num_threads(1)
    rows = np.repeat(vectors(4), [EQUAL, 300, 300, 1], axis=0)
    keys = shuffled(len(rows))
    build(tmp_path, rows, keys, 4, index_type=kind, shard_rows=300)
    with IndexWriter.existing(tmp_path) as w:
        for key in keys[::7]:
            w.remove("image", key)
        w.commit()
    asked = vectors(4)[0] + 0.5 * vectors(4)[1]
    with IndexReader.open(tmp_path) as reader:
        before = {k: hits(reader, asked, k) for k in (5, 100, 343, 500, 900)}
        assert len(reader.info.image.shards) > 2
    assert all(in_order(found) and found == before[900][:k] for k, found in before.items())
    without_columns(tmp_path)
    with IndexReader.open(tmp_path) as reader:
        assert {k: hits(reader, asked, k) for k in before} == before
    with IndexWriter.existing(tmp_path) as w:
        w.commit(compact=True)
    with IndexReader.open(tmp_path) as reader:
        assert {k: hits(reader, asked, k) for k in before} == before


def test_many_equal_rows_in_one_batch(tmp_path: Path) -> None:
    """More than a block of them, and queries with and without ties together."""
    rows = np.repeat(vectors(2), [70_000, 10], axis=0)
    build(tmp_path, rows, [f"{number:06}" for number in range(70_010)][::-1], index_type="exact")
    with IndexReader.open(tmp_path) as reader:
        found = reader.search("image", np.stack([vectors(2)[0], vectors(2)[1], vectors(9)[8]]), 3)
        names = [[reader.entry("image", 0, row)["key"] for row in one] for one in found.rows.tolist()]
    assert names[0] == ["000010", "000011", "000012"] and names[1] == ["000000", "000001", "000002"]
