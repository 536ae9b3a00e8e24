"""Scores that are corrected for hubs: the same through IVF-PQ and exactly, and numbers that go wherever rows go."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, IndexWriter, Item, catalog, ivfpq, verify
from brivl_search.index.hubs import read_correction
from brivl_search.index.store import Environment
from brivl_search.ingest import maintenance
from brivl_search.metrics import top_lists
from brivl_search.metrics.hub_correction import HubCorrection
from tests.support.hubs import DIM, made_pairs

ROWS = 1500
TEXTS, IMAGES, _ = made_pairs(True, photos=ROWS, each=1)
CORRECTION = HubCorrection(TEXTS[:400].astype(np.float16), 0.75, 32)
STORED = IMAGES.astype(np.float16)
ONES = np.ones(64, np.float32)
QUERIES = np.ascontiguousarray(TEXTS[700:764])


def writer(folder: Path, **options: Any) -> IndexWriter:
    return IndexWriter(folder, encoder_name="e", fingerprint="f", dim=DIM, **options)


def put(w: IndexWriter, numbers: range) -> None:
    w.stage_vectors("image", [f"c{n}" for n in numbers], IMAGES[list(numbers)])
    for n in numbers:
        w.put("image", Item(f"k{n:04}", f"c{n}", record={"path": f"k{n:04}"}))


def fill(folder: Path, correction: HubCorrection | None = CORRECTION, commits: int = 1, **options: Any) -> Path:
    ivfpq.faiss_module().omp_set_num_threads(1)
    edges = np.linspace(0, ROWS, commits + 1).astype(int).tolist()
    for start, end in pairwise(edges):
        with writer(folder, **options) as w:
            put(w, range(start, end))
            if not w.generation:
                w.correct_hubs("image", correction)
            w.commit(tuning_queries={"image": QUERIES} if end == ROWS else {})
    return folder


def keys(reader: IndexReader, k: int = 10, **options: Any) -> list[list[str]]:
    found = reader.search("image", QUERIES, k, **options)
    return [
        [reader.entry("image", int(s), int(r))["key"] for s, r in zip(*both, strict=True) if r >= 0]
        for both in zip(found.shards, found.rows, strict=True)
    ]


def wanted(
    rows: np.ndarray | None = None, k: int = 10, correction: HubCorrection | None = CORRECTION
) -> list[list[str]]:
    """By the slow reference: all corrected scores of some rows, sorted."""
    rows = np.arange(ROWS) if rows is None else rows
    added = None if correction is None else correction.of(STORED[rows])
    numbers, _ = top_lists(QUERIES, STORED[rows], k, added=added)
    return [[f"k{rows[n]:04}" for n in row] for row in numbers.tolist()]


def right_numbers(folder: Path, correction: HubCorrection = CORRECTION) -> None:
    """Every row of every shard has the number that its vector gives, in the catalog and in the reader."""
    with IndexReader.open(folder) as reader, catalog.reading(folder) as (txn, meta):
        shown = reader.lowered("image")
        assert shown is not None and len(shown) == len(meta.parts["image"].shards)
        for info, numbers, (vectors, _) in zip(meta.parts["image"].shards, shown, reader.blocks("image"), strict=True):
            stored = catalog.get_lowered(txn, info.name, info.rows)
            assert stored is not None and (stored == correction.of(vectors)).all() and (numbers == stored).all()
        named = {catalog.lowered_key(info.name) for info in meta.parts["image"].shards}
        with txn.cursor() as cursor:
            there = {bytes(key) for key in cursor.iternext(values=False) if bytes(key).startswith(b"lowered/")}
        assert there == named
    assert verify(folder).ok


KINDS = [{"index_type": "exact"}, {"index_type": "ivfpq"}, {"index_type": "ivfpq", "codec": "pq8", "shard_rows": 600}]


@pytest.mark.parametrize("options", KINDS, ids=["exact", "fastscan", "pq8 in three shards"])
def test_search_finds_what_the_reference_finds(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = fill(tmp_path / "index", commits=3, **options)
    right_numbers(folder)
    with IndexReader.open(folder) as reader:
        assert keys(reader, exact=True, strength=ONES) == wanted()
        tuned = keys(reader, strength=ONES)
        same = np.mean([len(set(a) & set(b)) for a, b in zip(tuned, wanted(), strict=True)])
        assert same >= 9.8 and (options["index_type"] == "ivfpq" or tuned == wanted())
        assert keys(reader, nprobe=10_000, rerank=ROWS, strength=ONES) == wanted()
        assert keys(reader, exact=True) == keys(reader, exact=True, strength=0 * ONES) == wanted(correction=None)
        assert wanted() != wanted(correction=None)
        allowed = [np.random.default_rng(s).random(i.rows) < 0.4 for s, i in enumerate(reader.info.image.shards)]
        rows = np.array(
            [int(reader.entry("image", s, r)["key"][1:]) for s, a in enumerate(allowed) for r in np.flatnonzero(a)]
        )
        assert keys(reader, exact=True, strength=ONES, allow=allowed) == wanted(np.sort(rows))
        found = reader.search("image", QUERIES, 10, strength=0.5 * ONES)
        assert found.lowered is not None and (np.diff(found.scores, axis=1) <= 0).all()
        vectors = np.stack([reader.vector("image", s, r) for s, r in zip(found.shards[3], found.rows[3], strict=True)])
        assert found.cosines[3] == pytest.approx(vectors.astype(np.float32) @ QUERIES[3], abs=1e-6)
        assert found.lowered[3] == pytest.approx(0.5 * CORRECTION.of(vectors), abs=1e-6)
        with pytest.raises(UsageError, match="strength"):
            reader.search("image", QUERIES, 10, strength=ONES[:3])


def test_the_tuner_measures_what_is_found_with_the_correction(tmp_path: Path) -> None:
    folder = fill(tmp_path / "index", index_type="ivfpq")
    with IndexReader.open(folder) as reader:
        tuning = reader.info.image.tuning
        assert tuning is not None and tuning.recall is not None
        tuned = keys(reader, strength=ONES)
        same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(tuned, wanted(), strict=True)])
        assert same == pytest.approx(tuning.recall, abs=2e-3) and tuning.recall >= 0.99


def test_numbers_follow_rows_that_are_added_replaced_and_removed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "index", commits=4)
    with writer(folder) as w:
        for n in range(0, 900, 3):
            w.remove("image", f"k{n:04}")
        w.stage_vectors("image", ["c1"], -IMAGES[1:2], replace=True)
        w.commit()
    right_numbers(folder)
    left = np.array([n for n in range(ROWS) if n >= 900 or n % 3])
    with IndexReader.open(folder) as reader:
        assert keys(reader, exact=True, strength=ONES) == wanted(left)
    maintenance.compact(folder)
    right_numbers(folder)
    with IndexReader.open(folder) as reader:
        assert reader.info.image.removed == 0 and keys(reader, exact=True, strength=ONES) == wanted(left)


def test_merged_rows_take_their_numbers_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "index", commits=2)
    computed: list[int] = []
    real = HubCorrection.of
    monkeypatch.setattr(HubCorrection, "of", lambda self, rows: computed.append(len(rows)) or real(self, rows))
    with writer(folder) as w:
        w.stage_vectors("image", ["new"], IMAGES[:1])
        w.put("image", Item("new", "new", record={"path": "new"}))
        w.commit()
    assert sum(computed) == 1
    monkeypatch.undo()
    right_numbers(folder)


def test_another_correction_and_none(tmp_path: Path) -> None:
    folder = fill(tmp_path / "index", None, commits=2, index_type="ivfpq")
    with IndexReader.open(folder) as reader:
        assert reader.lowered("image") is None and reader.info.image.correction is None
        assert keys(reader, exact=True, strength=ONES) == wanted(correction=None)
        assert reader.search("image", QUERIES, 3, strength=ONES).lowered is None
        before = reader.info.generation
    other = HubCorrection(TEXTS[400:500].astype(np.float16), 1.0, 8)
    for generation, correction in ((before + 1, CORRECTION), (before + 2, other)):
        with writer(folder) as w:
            w.correct_hubs("image", correction)
            w.commit(tuning_queries={"image": QUERIES})
        right_numbers(folder, correction)
        with IndexReader.open(folder) as reader:
            assert reader.info.generation == generation
            assert keys(reader, exact=True, strength=ONES) == wanted(correction=correction)
    with writer(folder) as w:
        w.correct_hubs("image", other)
        assert not w.commit().changed
    with writer(folder) as w:
        w.correct_hubs("image", None)
        w.commit()
    assert read_correction(folder, "image") is None and verify(folder).ok
    with IndexReader.open(folder) as reader:
        assert reader.lowered("image") is None
        assert (
            reader.info.image.tuning is not None and reader.info.image.tuning.recall is None
        )  # it was of another search
    with catalog.reading(folder) as (txn, _), txn.cursor() as cursor:
        assert not [key for key in cursor.iternext(values=False) if bytes(key).startswith((b"lowered", b"correction"))]
    with writer(folder) as w, pytest.raises(UsageError, match="3 dimensions"):
        w.correct_hubs("image", HubCorrection(np.ones((4, 3), np.float16), 1.0, 1))


def test_missing_numbers_are_computed_and_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "index")
    name = next((folder / "shards").iterdir()).name
    environment = Environment(catalog.catalog_path(folder), writable=True, lock=True)
    environment.write(lambda txn: txn.put(catalog.lowered_key(name), b"1234"))
    environment.close()
    assert [line for line in verify(folder).problems if "hub numbers" in line and name in line]
    with IndexReader.open(folder) as reader:
        assert keys(reader, exact=True, strength=ONES) == wanted()
    with writer(folder) as w:
        put(w, range(3))
        w.remove("image", "k0000")
        w.commit()
    right_numbers(folder)


def test_equal_rows_stay_in_the_order_of_their_keys(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    for start in (0, 40):
        with writer(folder, shard_rows=50) as w:
            w.stage_vectors("image", ["same"], IMAGES[:1])
            for n in range(start, start + 40):
                w.put("image", Item(f"k{n * 37 % 80:04}", "same", record={"path": ""}))
            w.correct_hubs("image", CORRECTION)
            w.commit()
    with IndexReader.open(folder) as reader:
        assert len(reader.info.image.shards) == 2
        (first, *_) = keys(reader, 80, strength=ONES)
        assert first == sorted(first) and len(first) == 80
