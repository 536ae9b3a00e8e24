"""Damage is found, named by file, and refused with a way to mend it."""

from __future__ import annotations

import json
from pathlib import Path

import lmdb
import numpy as np
import pytest

from brivl_search.errors import IndexIncompatibleError, IndexMissingError
from brivl_search.index import IndexReader, IndexWriter, Item, verify

DIM = 32


@pytest.fixture
def index(tmp_path: Path) -> Path:
    directory = tmp_path / "index"
    with IndexWriter(directory, encoder_name="mini", fingerprint="f", dim=DIM, shard_rows=50) as w:
        vectors = np.random.default_rng(0).standard_normal((120, DIM)).astype(np.float32)
        names = [f"{number:03d}" for number in range(120)]
        for modality in ("image", "text"):
            w.stage_vectors(modality, names, vectors)
            for name in names:
                w.put(modality, Item(name, name, record={"path": name}))
        w.commit()
    assert verify(directory).ok
    return directory


def edit(directory: Path, change: object) -> None:
    environment = lmdb.open(str(directory / "catalog.lmdb"), subdir=False, map_size=1 << 30)
    with environment.begin(write=True) as txn:
        change(txn)  # type: ignore[operator]
    environment.close()


def edit_meta(directory: Path, change: object) -> None:
    def apply(txn: lmdb.Transaction) -> None:
        body = json.loads(txn.get(b"meta"))
        change(body)  # type: ignore[operator]
        txn.put(b"meta", json.dumps(body).encode())

    edit(directory, apply)


def only_problem(directory: Path) -> str:
    report = verify(directory)
    assert not report.ok
    return report.problems[0]


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.95])
def test_flipped_byte(index: Path, place: float) -> None:
    path = index / "shards" / "image-000002.lmdb"
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1
    path.write_bytes(raw)
    report = verify(index)
    assert report.problems[0].startswith("shards/image-000002.lmdb: the checksum differs")
    assert len(report.problems) == 1  # the damage is told once, not again for every item


def assert_lost(index: Path, why: str) -> None:
    """A reader leaves the first image shard out, says so, and goes on with the texts."""
    with IndexReader.open(index) as reader:
        assert len(reader.damage) == 1 and why in reader.damage[0]
        assert reader.count("image") == 70 and reader.count("text") > 0


def test_missing_truncated_and_swapped_shards(index: Path) -> None:
    shards = index / "shards"
    saved = (shards / "image-000001.lmdb").read_bytes()
    (shards / "image-000001.lmdb").write_bytes(saved[:-4096])
    assert "shards/image-000001.lmdb" in only_problem(index)
    assert_lost(index, "image-000001.lmdb is damaged")
    (shards / "image-000001.lmdb").unlink()
    assert "shards/image-000001.lmdb: the file is missing" in only_problem(index)
    assert_lost(index, "image-000001.lmdb is missing")
    (shards / "image-000001.lmdb").write_bytes((shards / "text-000001.lmdb").read_bytes())
    assert "shards/image-000001.lmdb" in only_problem(index)


def test_wrong_row_count(index: Path) -> None:
    edit_meta(index, lambda body: body["parts"]["image"]["shards"][0].update(rows=49))
    assert "shards/image-000001.lmdb" in only_problem(index)
    assert_lost(index, "another number of vectors")


def test_item_pointing_astray(index: Path) -> None:
    def change(txn: lmdb.Transaction) -> None:
        txn.put(b"item/i=003", txn.get(b"item/i=004"))
        txn.delete(b"item/t=007")

    edit(index, change)
    problems = "\n".join(verify(index).problems)
    assert "catalog.lmdb: image '003' points to row 4" in problems
    assert "shards/image-000001.lmdb: 1 live rows belong to no item" in problems
    assert "shards/text-000001.lmdb: 1 live rows belong to no item" in problems


def test_newer_format(index: Path) -> None:
    edit_meta(index, lambda body: body.update(format_version=5))
    with pytest.raises(IndexIncompatibleError, match=r"format 5.*upgrade brivl-search"):
        IndexReader.open(index)
    with pytest.raises(IndexIncompatibleError, match="upgrade"):
        IndexWriter(index, encoder_name="mini", fingerprint="f", dim=DIM)
    assert "format 5" in only_problem(index)


def test_catalog_gone_or_rubbish(index: Path) -> None:
    (index / "catalog.lmdb").write_bytes(b"rubbish" * 4096)
    with pytest.raises(IndexIncompatibleError, match=r"catalog\.lmdb"):
        IndexReader.open(index)
    assert "catalog.lmdb" in only_problem(index)
    (index / "catalog.lmdb").unlink()
    with pytest.raises(IndexIncompatibleError, match="half-deleted index"):
        IndexReader.open(index)


def test_leftovers_are_told_and_swept(index: Path) -> None:
    with IndexWriter(index, encoder_name="mini", fingerprint="f", dim=DIM) as w:
        w.stage_vectors("image", ["new"], np.ones((1, DIM), np.float32))
        w.put("image", Item("new", "new"))
        assert verify(index).leftovers == ("a build is writing this index now",)
    (index / "shards" / ".tmp-image-000009.lmdb").write_bytes(b"x")
    report = verify(index)
    assert report.ok and len(report.leftovers) == 2 and "1 vectors and 1 changes" in report.leftovers[0]
    with IndexWriter(index, encoder_name="mini", fingerprint="f", dim=DIM) as w:
        assert w.known("image", "new") is not None  # the build continues
        w.commit()
    assert verify(index).leftovers == ()
    with IndexReader.open(index) as r:
        assert r.count("image") == 121


def test_staging_of_another_encoder_is_dropped(tmp_path: Path) -> None:
    with IndexWriter(tmp_path, encoder_name="one", fingerprint="1", dim=DIM) as w:
        w.stage_vectors("image", ["a"], np.ones((1, DIM), np.float32))
    with IndexWriter(tmp_path, encoder_name="two", fingerprint="2", dim=DIM) as w:
        assert not w.has_vector("image", "a")


def test_no_index_at_all(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError):
        verify(tmp_path)
