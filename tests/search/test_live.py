"""An open index follows what builds publish, and wants the encoder that fits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from brivl_search.errors import EncoderError, IndexIncompatibleError, IndexMissingError, UsageError
from brivl_search.index import IndexReader
from brivl_search.index.types import UNKNOWN_TIME
from brivl_search.search.engine import Engine, SearchOptions
from tests.support.pictures import draw, write_corpus
from tests.support.searching import build, names
from tests.support.stub import StubEncoder


def test_nothing_is_loaded_to_refuse(index: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError):
        Engine(tmp_path / "none")
    with pytest.raises(UsageError):
        Engine(index, encoder="gone").by_text(" ", SearchOptions())


def test_another_encoder_names_the_one_that_fits(index: Path) -> None:
    with pytest.raises(
        IndexIncompatibleError, match=r"is of encoder 'stub'.*'other' is another: give the one that fits with `encoder`"
    ) as e:
        Engine(index, encoder="other").by_text("a red ring", SearchOptions())
    assert e.value.exit_code == 3


def test_same_encoder_by_another_name_fits(index: Path) -> None:
    assert Engine(index, encoder="moved").by_text("a red ring", SearchOptions(1))


def test_encoder_that_is_gone(index: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    encoder.name = "gone"
    write_corpus(tmp_path / "photos", 2)
    of_gone = build(tmp_path / "photos", tmp_path / "of-gone", encoder)
    with pytest.raises(IndexIncompatibleError, match=r"needs its encoder 'gone'.*give its new place with `encoder`"):
        Engine(of_gone).by_text("x", SearchOptions())
    assert Engine(of_gone, encoder="moved").by_text("x", SearchOptions(1))  # found at its new place
    with pytest.raises(EncoderError):  # asked for by name: its own error
        Engine(index, encoder="gone").by_text("x", SearchOptions())


def test_a_long_lived_engine_sees_a_new_generation(tmp_path: Path, encoder: StubEncoder) -> None:
    draw("red", "circle").save(tmp_path / "first.png")
    index = build(tmp_path, tmp_path / "index", encoder)
    engine = Engine(index)
    before = engine.reader
    assert names(engine.by_text("a red circle", SearchOptions())) == ["first.png"] and engine.reader is before
    draw("blue", "cross").save(tmp_path / "second.png")
    build(tmp_path, index, encoder)
    assert names(engine.by_text("a blue cross", SearchOptions())) == ["second.png", "first.png"]
    assert engine.reader is not before and before.count("image") == 1
    shutil.rmtree(index)  # deleted under it: the last state goes on answering
    assert names(engine.by_text("a blue cross", SearchOptions())) == ["second.png", "first.png"]
    build(tmp_path, index, StubEncoder("other", "other-fingerprint"))
    with pytest.raises(IndexIncompatibleError, match="built again with encoder 'other'"):
        engine.by_text("a blue cross", SearchOptions())


def test_an_untouched_catalog_costs_one_stat(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = (index / "catalog.lmdb").stat()
    os.utime(index / "catalog.lmdb", ns=(status.st_atime_ns, status.st_mtime_ns - 10**11))  # not changed just now
    with IndexReader.open(index) as reader:
        monkeypatch.setattr("brivl_search.index.catalog.reading", None)
        assert not reader.stale()


def test_a_shard_that_fails_under_an_open_engine_is_left_out(tmp_path: Path, encoder: StubEncoder) -> None:
    for number, (colour, shape) in enumerate([("red", "circle"), ("blue", "cross"), ("green", "ring")]):
        draw(colour, shape).save(tmp_path / f"{number}.png")
    index = build(tmp_path, tmp_path / "index", encoder, shard_rows=1)
    engine = Engine(index)
    shard = engine.reader._parts["image"][1].shard
    shard._sums = shard._sums ^ 1  # what reading a rotten page gives: bytes and checksum differ
    assert sorted(names(engine.by_text("a blue cross", SearchOptions()))) == ["0.png", "2.png"]
    assert "image-000002.lmdb is damaged" in engine.reader.damage[0]


def test_another_index_in_its_place_is_noticed(tmp_path: Path, encoder: StubEncoder) -> None:
    """Both are of generation 1 and have the same names."""
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        draw(colour, "circle").save(tmp_path / colour / f"{colour}.png")
        build(tmp_path / colour, tmp_path / f"ix-{colour}", encoder)
    index = tmp_path / "ix-red"
    engine = Engine(index)
    assert names(engine.by_text("a circle", SearchOptions())) == ["red.png"]
    index.rename(tmp_path / "old")
    (tmp_path / "ix-blue").rename(index)  # moved into place
    assert names(engine.by_text("a circle", SearchOptions())) == ["blue.png"]
    (hit,) = engine.by_text("a circle", SearchOptions())
    assert engine.reader.find("image", hit.key) == (0, 0)
    shutil.rmtree(index)
    build(tmp_path / "red", index, encoder)  # built again
    assert names(engine.by_text("a circle", SearchOptions())) == ["red.png"]


def test_a_reader_of_the_old_index_finds_nothing_in_the_new_one(tmp_path: Path, encoder: StubEncoder) -> None:
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        draw(colour, "circle").save(tmp_path / colour / f"{colour}.png")
        build(tmp_path / colour, tmp_path / f"ix-{colour}", encoder)
    with IndexReader.open(tmp_path / "ix-red") as reader:
        (tmp_path / "ix-red").rename(tmp_path / "old")
        (tmp_path / "ix-blue").rename(tmp_path / "ix-red")
        assert reader.stale()
        assert reader.find("image", str(tmp_path / "red" / "red.png")) == (0, 0)
        assert reader.find("image", str(tmp_path / "blue" / "blue.png")) is None
        assert [times.tolist() for times in reader.mtimes("image")] == [[UNKNOWN_TIME]]


def test_a_shard_cut_short_is_left_out(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 12)
    index = tmp_path / "index"
    build(tmp_path / "photos", index, encoder, shard_rows=6)
    engine = Engine(index)
    assert len(engine.by_text("a red circle", SearchOptions(20))) == 12
    shard = sorted((index / "shards").glob("image-*"))[0]
    os.truncate(shard, 4096)  # in place: the mapped pages are gone
    assert len(engine.by_text("a red circle", SearchOptions(20))) == 6
    assert "cut short" in engine.reader.damage[0]
