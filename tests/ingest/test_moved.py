"""What is taken for moved, and what is a copy; what stays while something is away. Each was seen to go wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, verify
from brivl_search.ingest import moved
from brivl_search.ingest.maintenance import move, remove
from tests.ingest.test_sources import added, kinds, library, names, photo, synced
from tests.support import datasets
from tests.support.building import build, images, texts
from tests.support.datasets import write_tar
from tests.support.older import make_older
from tests.support.pictures import write_lines
from tests.support.stub import StubEncoder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "ix"


def sound(index: Path) -> None:
    """No path twice, and all is what it says."""
    assert len(images(index)) == len(set(images(index))) and verify(index).ok


def test_a_partial_copy_is_no_move(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    for number in range(1, 8):
        photo(tmp_path / "usb" / ("2019" if number < 6 else "2020") / f"{number}.jpg", number)
    photo(tmp_path / "r" / "9.jpg", 9)
    build([tmp_path / "usb", tmp_path / "r"], index, encoder)
    (tmp_path / "usb").rename(tmp_path / "drawer")
    shutil.copytree(tmp_path / "drawer" / "2019", tmp_path / "home" / "2019")
    report = added(tmp_path / "home", index, encoder)
    assert any("5 of the 7 images" in note and "`sources` move" in note for note in report.notes)
    assert len(images(index)) == 8 + 5 and report.vanished == 0
    (tmp_path / "drawer").rename(tmp_path / "usb")
    assert synced(index, encoder).embedded == 0 and len(images(index)) == 13
    sound(index)


def test_a_copy_that_is_indexed_already_is_no_move(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "a")
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    (tmp_path / "a").rename(tmp_path / "drawer")
    report = synced(index, encoder)
    assert len(images(index)) == 8 and "a is not there: its 4 images stay" in report.notes[0]
    sound(index)


def test_two_roots_of_equal_content_do_not_move_to_one_place(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    for copy in ("b", "c/2024"):
        shutil.copytree(tmp_path / "a", tmp_path / copy)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    build(tmp_path / "c", index, encoder)
    assert len(images(index)) == 8
    sound(index)


def test_a_root_moves_into_another_one(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    photo(tmp_path / "b" / "9.jpg", 9)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    (tmp_path / "a").rename(tmp_path / "b" / "a")
    report = synced(index, encoder)
    assert (report.embedded, report.reused) == (0, 0) and len(images(index)) == 5
    assert len(report.notes) == 1 and "a has moved to" in report.notes[0]
    assert all(os.path.isfile(path) for path in images(index))
    sound(index)


def test_a_root_moves_onto_the_place_of_one_that_moved(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    photo(tmp_path / "b" / "9.jpg", 9)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    build(tmp_path / "c", index, encoder)
    build(tmp_path / "a", index, encoder)
    assert encoder.images == 5 and len(images(index)) == 5 and all(os.path.isfile(path) for path in images(index))
    sound(index)


def test_a_named_file_goes_away_with_its_root(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    photo(tmp_path / "r" / "9.jpg", 9)
    odd = [photo(tmp_path / "p" / ".private" / "h.jpg", 2), photo(tmp_path / "p" / "x.unknown", 3)]
    build([tmp_path / "p", tmp_path / "r"], index, encoder)
    added(odd, index, encoder)
    (tmp_path / "p").rename(tmp_path / "q")
    report = synced(index, encoder)
    assert report.vanished == 0 and len(images(index)) == 4
    (tmp_path / "p").mkdir()
    assert synced(index, encoder).vanished == 0 and len(images(index)) == 4
    (tmp_path / "p").rmdir()
    report = build(tmp_path / "q", index, encoder)
    assert (report.embedded, report.vanished) == (0, 0)
    assert len(images(index)) == 4 and all(os.path.isfile(path) for path in images(index))
    sound(index)


def test_an_inner_root_that_is_away(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "top" / "a")
    photo(tmp_path / "top" / "9.jpg", 9)
    build(tmp_path / "top" / "a", index, encoder)
    build(tmp_path / "top", index, encoder)
    (tmp_path / "top" / "a").rename(tmp_path / "z")
    for _ in range(2):
        report = synced(index, encoder)
        assert report.vanished == 0 and "its 4 images stay" in report.notes[0] and len(images(index)) == 5
    assert build(tmp_path / "top", index, encoder).vanished == 0


def test_an_inner_root_keeps_its_own_options(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    photo(tmp_path / "p" / "sub" / ".h.jpg", 2)
    build(tmp_path / "p", index, encoder, exclude=("sub/",))
    build(tmp_path / "p" / "sub", index, encoder, include_hidden=True)
    for _ in range(2):
        assert build(tmp_path / "p", index, encoder).vanished == 0 and len(images(index)) == 2
        assert not synced(index, encoder).commit.changed  # type: ignore[union-attr]
    assert encoder.images == 2


def test_a_tar_below_a_root_goes_away(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    write_tar(tmp_path / "p" / "set.tar", {**datasets.sample(0), **datasets.sample(1)})
    build(tmp_path / "p", index, encoder)
    added(tmp_path / "p" / "set.tar", index, encoder)
    assert kinds(index) == {"p": "folder", "set.tar": "dataset"}  # what was added is remembered
    (tmp_path / "p" / "set.tar").rename(tmp_path / "t")
    for report in (build(tmp_path / "p", index, encoder), synced(index, encoder)):
        assert report.vanished == 0 and len(images(index)) == 3 and len(texts(index)) == 2
    (tmp_path / "t").rename(tmp_path / "p" / "set.tar")
    report = synced(index, encoder)
    assert (report.embedded, report.captions_removed, report.notes) == (0, 0, [])


def test_a_source_that_cannot_be_read_stops_no_other(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "r" / "1.jpg", 1)
    datasets.coco(tmp_path / "coco")
    library(tmp_path / "f")
    write_tar(tmp_path / "set.tar", datasets.sample(0))
    told = tmp_path / "coco" / "annotations" / "captions_val2014.json"
    build([tmp_path / "r", told, tmp_path / "f", tmp_path / "set.tar"], index, encoder)
    before = len(images(index))
    (tmp_path / "set.tar").write_bytes(b"garbage" * 100)
    told.write_text("no JSON")
    shutil.rmtree(tmp_path / "f")
    (tmp_path / "f").symlink_to("f")
    photo(tmp_path / "r" / "new.jpg", 8)
    report = synced(index, encoder)
    assert report.embedded == 1 and report.vanished == 0 and len(images(index)) == before + 1
    assert len(report.notes) == 3 and all("stay" in note for note in report.notes), report.notes
    assert synced(index, encoder).vanished == 0


def test_a_new_disk_holds_lost_and_found(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "disk")
    photo(tmp_path / "r" / "1.jpg", 9)
    build([tmp_path / "disk", tmp_path / "r"], index, encoder)
    (tmp_path / "disk").rename(tmp_path / "drawer")
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    assert "disk is empty: its 4 images stay" in synced(index, encoder).notes[0]


def test_photos_of_another_at_the_old_place(tmp_path: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "d" / "p")
    one = photo(tmp_path / "d" / "out" / "one.jpg", 9)
    build(tmp_path / "d" / "p", tmp_path / "d" / "ix", encoder)
    added(one, tmp_path / "d" / "ix", encoder)
    (tmp_path / "d").rename(tmp_path / "m")
    for number in range(1, 5):
        photo(tmp_path / "d" / "p" / f"{number % 2}" / f"{number}.jpg", 20 + number)
    index = tmp_path / "m" / "ix"
    assert all(path.startswith(str(tmp_path / "m")) for path in images(index)) and len(images(index)) == 5
    report = synced(index, encoder)
    assert (report.embedded, report.vanished, report.unchanged) == (0, 0, 5)


def test_caption_files(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    picture = photo(tmp_path / "p" / "a.jpg", 1)
    write_lines(tmp_path / "p" / "more.jsonl", [{"image": "a.jpg", "en": "inside"}])
    write_lines(tmp_path / "abs.jsonl", [{"image": str(picture), "zh": "绝对"}])
    added([tmp_path / "p", tmp_path / "p" / "more.jsonl"], index, encoder)  # both in one call
    added(tmp_path / "abs.jsonl", index, encoder)
    assert synced(index, encoder).captions_removed == 0 and len(texts(index)) == 2
    (tmp_path / "p").rename(tmp_path / "q")
    assert build(tmp_path / "q", index, encoder).captions_removed == 0
    assert synced(index, encoder).captions_removed == 0 and len(texts(index)) == 2


def test_a_dataset_that_is_removed_takes_its_images_along(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    datasets.coco(tmp_path / "coco")
    told = tmp_path / "coco" / "annotations" / "captions_val2014.json"
    photo(tmp_path / "r" / "1.jpg", 1)
    build([told, tmp_path / "r"], index, encoder)
    report = remove(index, paths=[told])
    assert (report.images, report.captions) == (3, 6) and names(index) == ["1.jpg"] and texts(index) == []
    assert kinds(index) == {"r": "folder"}


def test_datasets_that_moved(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    root = datasets.flickr(tmp_path / "d")
    write_tar(tmp_path / "set.tar", {**datasets.sample(0), **datasets.sample(1)})
    from brivl_search.corpus.sources import DatasetChoice

    build(root, index, encoder, dataset=DatasetChoice("flickr"))
    build(tmp_path / "set.tar", index, encoder)
    count, seen = len(images(index)), encoder.images
    shutil.copytree(root, tmp_path / "e")
    shutil.rmtree(root)
    assert build(tmp_path / "e", index, encoder).captions_removed == 0
    (tmp_path / "set.tar").rename(tmp_path / "other.tar")
    build(tmp_path / "other.tar", index, encoder)
    shutil.copy(tmp_path / "other.tar", tmp_path / "third.tar")
    (tmp_path / "other.tar").unlink()
    build(tmp_path / "third.tar", index, encoder)
    assert len(images(index)) == count and encoder.images == seen
    assert all(os.path.isfile(path.partition("::")[0]) for path in images(index))
    sound(index)


def test_a_link_below_a_folder_that_is_built_again(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "real")
    photo(tmp_path / "above" / "own.jpg", 9)
    (tmp_path / "above" / "again").symlink_to(tmp_path / "real")
    for folder in ("real", "above", "above"):
        build(tmp_path / folder, index, encoder)
        assert len(images(index)) == (4 if folder == "real" else 5)


def test_a_single_file_of_an_older_index(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    one = photo(tmp_path / "x" / "o.jpg", 2)
    build(tmp_path / "p", index, encoder)
    added(one, index, encoder)
    make_older(index)
    assert synced(index, encoder).vanished == 0 and len(images(index)) == 2
    one.unlink()
    assert synced(index, encoder).vanished == 1 and names(index) == ["a.jpg"]


def test_moves_onto_what_is_known(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    photo(tmp_path / "b" / "9.jpg", 9)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "a")
    build(tmp_path / "b", index, encoder)
    with pytest.raises(UsageError, match=r"in the index already: `remove` .*a forgets the old place"):
        move(index, tmp_path / "a", tmp_path / "b" / "a")
    with IndexReader.open(index) as reader:
        assert reader.count("image") == 9


def test_an_inode_is_used_again(
    tmp_path: Path, index: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The top folders of two disks have one inode, and often one device number after another."""
    library(tmp_path / "disk")
    photo(tmp_path / "r" / "9.jpg", 9)
    build([tmp_path / "disk", tmp_path / "r"], index, encoder)
    place = moved.place_of(str(tmp_path / "disk"))
    (tmp_path / "disk").rename(tmp_path / "drawer")
    for number in range(5):
        photo(tmp_path / "other" / f"{number}.jpg", 20 + number)
    real = moved.place_of
    monkeypatch.setattr(moved, "place_of", lambda path: place if path.endswith("other") else real(path))
    report = build(tmp_path / "other", index, encoder)
    assert report.vanished == 0 and len(images(index)) == 10
    sound(index)


def test_a_copy_with_the_inode_of_what_was_copied_anew(
    tmp_path: Path, index: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that is copied back gives folders other numbers, and a copy may get the one that the root had."""
    library(tmp_path / "a")
    build([tmp_path / "a"], index, encoder)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    before, place = moved.place_of(str(tmp_path / "a")), moved.place_of
    numbers = {str(tmp_path / "a"): (1, 1), str(tmp_path / "copy"): before}
    monkeypatch.setattr(moved, "place_of", lambda path: numbers.get(path) or place(path))
    report = build([tmp_path / "copy"], index, encoder)
    assert len(images(index)) == 8 and not any("has moved" in note for note in report.notes)
    sound(index)


def test_a_link_that_leads_elsewhere_now_is_a_folder_with_other_files(
    tmp_path: Path, index: Path, encoder: StubEncoder
) -> None:
    photo(tmp_path / "2023" / "1.jpg", 1)
    photo(tmp_path / "2024" / "2.jpg", 2)
    link = tmp_path / "photos"
    link.symlink_to("2023")
    build(link, index, encoder)
    link.unlink()
    link.symlink_to("2024")
    report = synced(index, encoder)
    assert images(index) == [str(link / "2.jpg")] and (report.embedded, report.vanished) == (1, 1)
    assert kinds(index) == {"photos": "folder"}
    sound(index)


def test_a_folder_that_moved_up_into_the_place_above_it(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "a" / "b" / "1.jpg", 1)
    photo(tmp_path / "c" / "2.jpg", 2)
    build([tmp_path / "a" / "b", tmp_path / "c"], index, encoder)
    (tmp_path / "a" / "b").rename(tmp_path / "t")
    (tmp_path / "a").rmdir()
    (tmp_path / "t").rename(tmp_path / "a")
    report = build(tmp_path / "a", index, encoder)
    assert images(index) == [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "c" / "2.jpg")]
    assert report.unchanged == 1 and any("has moved" in note for note in report.notes)
    sound(index)


def test_a_root_inside_the_folder_that_is_built_and_away_is_told(
    tmp_path: Path, index: Path, encoder: StubEncoder
) -> None:
    photo(tmp_path / "a" / "1.jpg", 1)
    photo(tmp_path / "a" / "usb" / "2.jpg", 2)
    build([tmp_path / "a", tmp_path / "a" / "usb"], index, encoder)
    (tmp_path / "a" / "usb").rename(tmp_path / "drawer")
    for report in (build(tmp_path / "a", index, encoder), synced(index, encoder)):
        (note,) = report.notes
        assert "usb is not there: its image stays" in note
        assert names(index) == ["1.jpg", "2.jpg"] and report.vanished == 0
