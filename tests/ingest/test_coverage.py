"""What a build looks at, in indexes of older formats too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brivl_search.corpus.sources import DatasetChoice
from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import IndexReader, verify
from brivl_search.index.snapshot import Snapshot
from brivl_search.ingest.options import BuildOptions
from tests.ingest.test_sources import added, library, names, photo, synced
from tests.support import datasets
from tests.support.building import build, images
from tests.support.datasets import write_tar
from tests.support.older import make_older
from tests.support.pictures import write_lines
from tests.support.stub import StubEncoder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "ix"


def test_an_exclude_that_leaves_nothing(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "p")
    with pytest.raises(CorpusError, match="4 excluded"):
        build(tmp_path / "p", index, encoder, exclude=("*",))
    build(tmp_path / "p", index, encoder)
    with pytest.raises(CorpusError, match="4 excluded"):
        synced(index, encoder, exclude=("*",))
    assert len(images(index)) == 4 and synced(index, encoder).unchanged == 4


def test_an_index_of_format_3_is_read_and_brought_along(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    odd = photo(tmp_path / "p" / ".h.jpg", 2)
    build(tmp_path / "p", index, encoder)
    added(odd, index, encoder)
    make_older(index)
    assert [source.kind for source in Snapshot.read(index).sources] == ["folder"]
    with IndexReader.open(index) as reader:
        assert reader.info.identity == "" and reader.info.roots == ((str(tmp_path / "p"), str(tmp_path / "p")),)
    report = synced(index, encoder)
    assert report.vanished == 0 and names(index) == [".h.jpg", "a.jpg"]  # it was added by name: nobody knows any more
    with IndexReader.open(index) as reader:
        assert len(reader.info.identity) == 32
    assert verify(index).ok


def test_a_dataset_moves_with_what_lies_beside_it(tmp_path: Path, encoder: StubEncoder) -> None:
    disk = tmp_path / "disk"
    root = datasets.flickr(disk / "data")
    make = [build(root, disk / "ix", encoder, dataset=DatasetChoice("flickr"))]
    tar = write_tar(disk / "set.tar", {**datasets.sample(0), **datasets.sample(1), **datasets.sample(2)})
    make.append(build(tar, disk / "ix", encoder))
    photo(disk / "told" / "1.jpg", 1)
    write_lines(disk / "told" / "all.jsonl", [{"image": "1.jpg", "en": "one"}])
    make.append(build(disk / "told" / "all.jsonl", disk / "ix", encoder))
    count = len(images(disk / "ix"))
    assert count == 7 and all(report.embedded or report.reused for report in make)
    disk.rename(tmp_path / "mnt")
    index = tmp_path / "mnt" / "ix"
    report = synced(index, encoder)
    assert (report.embedded, report.reused, report.vanished, report.unchanged) == (0, 0, 0, count), report
    assert all(path.startswith(str(tmp_path / "mnt")) for path in images(index)) and report.notes == []


def test_a_caption_file_moves_with_its_pictures(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "a" / "images" / "1.jpg", 1)
    write_lines(tmp_path / "a" / "all.jsonl", [{"image": "images/1.jpg", "en": "one"}])
    other = photo(tmp_path / "a" / "other" / "2.jpg", 2).parent
    build([tmp_path / "a" / "all.jsonl", other], index, encoder)
    (tmp_path / "b").mkdir()
    for name in ("images", "all.jsonl"):
        shutil.copy2(tmp_path / "a" / name, tmp_path / "b") if name == "all.jsonl" else shutil.copytree(
            tmp_path / "a" / name, tmp_path / "b" / name
        )
        shutil.move(tmp_path / "a" / name, tmp_path / f"gone-{name}")
    report = build(tmp_path / "b" / "all.jsonl", index, encoder)
    assert report.embedded == 0 and "has moved" in report.notes[0]
    assert images(index) == [str(other / "2.jpg"), str(tmp_path / "b" / "images" / "1.jpg")]  # the other one stayed
    assert not synced(index, encoder).commit.changed  # type: ignore[union-attr]


def test_a_move_of_a_folder_above_as_an_option_of_sync(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "mnt" / "a")
    one = photo(tmp_path / "mnt" / "c" / "one.jpg", 9)
    build([tmp_path / "mnt" / "a"], index, encoder)
    added(one, index, encoder)
    (tmp_path / "mnt").rename(tmp_path / "media")
    report = synced(index, encoder, moves=((str(tmp_path / "mnt"), str(tmp_path / "media")),))
    assert (report.unchanged, report.vanished, report.embedded) == (5, 0, 0), report
    assert all(path.startswith(str(tmp_path / "media")) for path in images(index))
    assert not synced(index, encoder).commit.changed  # type: ignore[union-attr]


def test_patterns_that_keep_nothing_out_are_named_once(tmp_path: Path, encoder: StubEncoder) -> None:
    for folder in "ab":
        photo(tmp_path / folder / "1.jpg", 1)
        photo(tmp_path / folder / f"{folder}.png", 2)
    both, index = [tmp_path / "a", tmp_path / "b"], tmp_path / "ix"
    report = build(both, index, encoder, exclude=("a.png", "*.gif", "/nowhere/x"))
    (note,) = report.notes
    assert note.startswith("`exclude` *.gif, /nowhere/x: keeps nothing out") and "a.png" not in note
    assert not synced(index, encoder).notes  # remembered ones may have nothing to do
    assert not build(both, index, encoder, exclude=()).notes


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0, -1.0])
def test_a_limit_that_json_does_not_have_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match=rf"`max_megapixels` {value:g}: give a number of megapixels"):
        BuildOptions(max_megapixels=value)
