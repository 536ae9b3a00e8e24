"""What an index covers: what was added stays, what is away is kept, what moved is found again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import EncoderInfo, IndexReader, IndexWriter, Item, verify
from brivl_search.index.snapshot import Snapshot
from brivl_search.ingest.maintenance import move, remove
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport
from brivl_search.ingest.run import add
from brivl_search.ingest.sync import sync
from brivl_search.transfer.imports import import_vectors
from tests.support.building import Silent, build, images, texts
from tests.support.pictures import draw, encoded, write_lines
from tests.support.stub import StubEncoder


def photo(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(draw("red", "circle", seed=number), "JPEG"))
    return path


def synced(index: Path, encoder: StubEncoder, **options: Any) -> BuildReport:
    return sync(index, encoder, BuildOptions(workers=0, **options), Silent())


def added(paths: Path | list[Path], index: Path, encoder: StubEncoder, **options: Any) -> BuildReport:
    given = [paths] if isinstance(paths, Path) else paths
    return add(given, index, encoder, BuildOptions(workers=0, **options), Silent())


def names(index: Path) -> list[str]:
    return [os.path.basename(path) for path in images(index)]


def kinds(index: Path) -> dict[str, str]:
    """Base name of each source → its kind."""
    with IndexReader.open(index) as reader:
        return {os.path.basename(source.path): source.kind for source in reader.info.sources}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "ix"


# -- what still exists stays -------------------------------------------------------------------------------------


def test_files_that_a_scan_passes_over_stay_and_are_kept_in_step(
    tmp_path: Path, index: Path, encoder: StubEncoder
) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    odd = [photo(tmp_path / "p" / ".private" / "h.jpg", 2), photo(tmp_path / "p" / "x.unknown", 3)]
    build(tmp_path / "p", index, encoder)
    added(odd, index, encoder)
    for report in (synced(index, encoder), build(tmp_path / "p", index, encoder)):
        assert report.vanished == 0 and len(images(index)) == 3
        assert report.commit is not None and not report.commit.changed
    photo(odd[1], 4)  # another picture under the same name
    assert synced(index, encoder).embedded == 1
    odd[0].unlink()
    assert synced(index, encoder).vanished == 1 and names(index) == ["a.jpg", "x.unknown"]


def test_a_folder_remembers_what_it_is_read_with(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    photo(tmp_path / "p" / ".h.jpg", 2)
    photo(tmp_path / "p" / "drafts" / "d.jpg", 3)
    write_lines(tmp_path / "p" / "captions.jsonl", [{"image": "a.jpg", "zh": "红", "en": "red", "fr": "bonjour"}])
    build(tmp_path / "p", index, encoder, include_hidden=True, caption_fields=("fr",), exclude=("drafts/",))
    for _ in range(2):
        assert names(index) == [".h.jpg", "a.jpg"] and [text for *_, text in texts(index)] == ["bonjour"]
        assert not synced(index, encoder).commit.changed  # type: ignore[union-attr]
        assert not build(tmp_path / "p", index, encoder).commit.changed  # type: ignore[union-attr]
    synced(index, encoder, include_hidden=False, exclude=(), caption_fields=())
    assert names(index) == ["a.jpg", "d.jpg"] and len(texts(index)) == 2
    assert not synced(index, encoder).commit.changed  # type: ignore[union-attr]


def test_limits_are_of_each_root(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "small" / "a.jpg", 1)
    photo(tmp_path / "large" / "b.jpg", 2)
    assert build(tmp_path / "small", index, encoder).embedded == 1
    with pytest.raises(CorpusError, match="no images"):
        build(tmp_path / "large", index, encoder, exclude=("*",))
    report = build(tmp_path / "large", index, encoder, max_megapixels=0.0001)
    assert [skip.reason for skip in report.skipped] == ["too large"] and names(index) == ["a.jpg"]
    photo(tmp_path / "small" / "c.jpg", 3)
    report = synced(index, encoder)  # the small folder's pictures are not held to the other's limit
    assert names(index) == ["a.jpg", "c.jpg"] and len(report.skipped) == 1


@pytest.mark.parametrize("where", ["p/more.jsonl", "elsewhere/more.jsonl"])
def test_caption_files_that_were_added_stay(where: str, tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    picture = photo(tmp_path / "p" / "a.jpg", 1)
    build(tmp_path / "p", index, encoder)
    file = tmp_path / where
    file.parent.mkdir(exist_ok=True)
    write_lines(file, [{"image": str(picture), "en": "one"}])
    added(file, index, encoder)
    for report in (synced(index, encoder), build(tmp_path / "p", index, encoder)):
        assert report.captions_removed == 0 and texts(index) == [("a.jpg", "en", "one")]
    write_lines(file, [{"image": str(picture), "en": "two"}])
    synced(index, encoder)
    assert texts(index) == [("a.jpg", "en", "two")]
    file.rename(tmp_path / "away.jsonl")
    report = synced(index, encoder)
    assert texts(index) == [("a.jpg", "en", "two")] and any("more.jsonl" in note for note in report.notes)
    remove(index, paths=[file])
    assert synced(index, encoder).captions_removed == 1 and texts(index) == []


def test_imported_rows_stay(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    build(tmp_path / "p", index, encoder)
    vectors = np.eye(4, encoder.dim, dtype=np.float32)
    np.save(tmp_path / "p" / "v.npy", vectors)
    lines = [{"path": f"elsewhere-{n}.jpg"} for n in range(3)] + [{"path": "a.jpg"}]
    write_lines(tmp_path / "p" / "v.jsonl", lines)
    who = EncoderInfo(encoder.name, encoder.fingerprint, encoder.dim)
    import_vectors(tmp_path / "p" / "v.npy", tmp_path / "p" / "v.jsonl", "image", index, who, encoder.encode_texts)
    for report in (synced(index, encoder), build(tmp_path / "p", index, encoder)):
        assert report.vanished == 0 and len(images(index)) == 4
    (tmp_path / "p" / "a.jpg").unlink()
    photo(tmp_path / "p" / "b.jpg", 2)
    assert synced(index, encoder).vanished == 1 and len(images(index)) == 4


# -- what is away ------------------------------------------------------------------------------------------------


def test_a_root_that_is_away_is_kept_and_the_others_are_synced(
    tmp_path: Path, index: Path, encoder: StubEncoder
) -> None:
    photo(tmp_path / "a" / "1.jpg", 1)
    photo(tmp_path / "b" / "2.jpg", 2)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    (tmp_path / "b").rename(tmp_path / "hidden")
    photo(tmp_path / "a" / "3.jpg", 3)
    report = synced(index, encoder)
    assert names(index) == ["1.jpg", "3.jpg", "2.jpg"] and report.embedded == 1
    (note,) = report.notes
    assert "b is not there" in note and "`sources` move" in note and "`remove`" in note
    (tmp_path / "hidden").rename(tmp_path / "b")
    report = synced(index, encoder)
    assert (report.embedded, report.reused, report.vanished, report.notes) == (0, 0, 0, [])
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(UsageError, match="b is not there"):
        build(tmp_path / "b", index, encoder)
    remove(index, paths=[tmp_path / "b"])
    assert names(index) == ["1.jpg", "3.jpg"] and kinds(index) == {"a": "folder"}
    assert synced(index, encoder).notes == []


def test_nothing_of_it_is_there(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "a" / "1.jpg", 1)
    build(tmp_path / "a", index, encoder)
    (tmp_path / "a").rename(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"a is not there: its image stays.*`sources` move"):
        synced(index, encoder)
    assert names(index) == ["1.jpg"]
    (tmp_path / "a").mkdir()  # a mount point
    with pytest.raises(CorpusError, match="a is empty"):
        synced(index, encoder)
    assert names(index) == ["1.jpg"]
    remove(index, paths=[tmp_path / "a"])
    with pytest.raises(UsageError, match="remembers no folder"):
        synced(index, encoder)


def test_a_folder_below_a_root_that_is_suddenly_empty(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    photo(tmp_path / "p" / "a.jpg", 1)
    photo(tmp_path / "p" / "disk" / "b.jpg", 2)
    build(tmp_path / "p", index, encoder)
    (tmp_path / "p" / "disk" / "b.jpg").rename(tmp_path / "b.jpg")
    report = synced(index, encoder)
    assert report.vanished == 0 and names(index) == ["a.jpg", "b.jpg"] and "disk is empty" in report.notes[0]
    (tmp_path / "b.jpg").rename(tmp_path / "p" / "disk" / "b.jpg")
    report = synced(index, encoder)
    assert (report.embedded, report.notes) == (0, [])
    (tmp_path / "p" / "disk" / "b.jpg").rename(tmp_path / "p" / "sorted.jpg")  # moved within the root: not a disk
    report = synced(index, encoder)
    assert (report.vanished, report.reused, report.notes) == (1, 1, []) and names(index) == ["a.jpg", "sorted.jpg"]


def test_a_disk_below_a_root_that_is_unmounted_with_its_folder(
    tmp_path: Path, index: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "media" / "a.jpg", 1)
    photo(tmp_path / "media" / "USB" / "b.jpg", 2)
    other = os.stat(tmp_path).st_dev + 1
    real = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> Any:
        found = real(path, *arguments, **options)
        if str(path).endswith("USB"):
            values = list(found)
            values[2] = other
            return os.stat_result(values, {"st_mtime_ns": found.st_mtime_ns})
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        build(tmp_path / "media", index, encoder)
    assert list(Snapshot.read(index).sources[0].mounts) == ["USB"]
    (tmp_path / "media" / "USB").rename(tmp_path / "drawer")
    for _ in range(2):  # and it is still known the second time
        report = synced(index, encoder)
        assert report.vanished == 0 and len(images(index)) == 2 and "USB is not there" in report.notes[0]
    remove(index, paths=[tmp_path / "media" / "USB"])
    assert names(index) == ["a.jpg"]


def test_single_files_are_missed(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    one = photo(tmp_path / "x" / "one.jpg", 1)
    two = photo(tmp_path / "y" / "two.jpg", 2)
    added([one, two], index, encoder)
    assert synced(index, encoder).vanished == 0
    one.unlink()
    shutil.rmtree(tmp_path / "y")
    photo(tmp_path / "z" / "three.jpg", 3)
    added(tmp_path / "z", index, encoder)
    assert synced(index, encoder).vanished == 2 and names(index) == ["three.jpg"]


# -- what moved --------------------------------------------------------------------------------------------------


def library(folder: Path) -> None:
    for number in range(1, 5):
        photo(folder / f"{number % 2}" / f"{number}.jpg", number)


@pytest.mark.parametrize("how", ["renamed", "copied", "below"])
def test_a_root_that_moved_is_recognised(how: str, tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    old, new = tmp_path / "photos", tmp_path / "pictures"
    library(old)
    write_lines(old / "captions.jsonl", [{"image": "1/1.jpg", "en": "one"}])
    build(old, index, encoder, exclude=("none",))
    seen = encoder.images
    if how == "renamed":
        old.rename(new)
    else:
        shutil.copytree(old, new / "2024" if how == "below" else new)
        shutil.rmtree(old)
    report = build(new, index, encoder)
    assert (report.embedded, report.reused, report.unchanged, encoder.images) == (0, 0, 4, seen)
    assert any("photos has moved to" in note for note in report.notes)
    assert len(images(index)) == 4 and all(os.path.isfile(path) for path in images(index))
    assert texts(index) == [("1.jpg", "en", "one")]
    assert verify(index).ok and not synced(index, encoder).commit.changed  # type: ignore[union-attr]


def test_a_copy_is_no_move(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    build(tmp_path / "a", index, encoder)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    report = build(tmp_path / "b", index, encoder)
    assert report.notes == [] and len(images(index)) == 8 and report.reused == 4


def test_index_and_photos_move_together(tmp_path: Path, encoder: StubEncoder) -> None:
    disk = tmp_path / "disk"
    library(disk / "photos")
    write_lines(disk / "photos" / "captions.jsonl", [{"image": "1/1.jpg", "en": "one"}])
    for index in (disk / "ix", disk / "photos" / "ix"):  # beside the root, and inside it
        build(disk / "photos", index, encoder)
    seen = encoder.images
    disk.rename(tmp_path / "mnt")
    for index in (tmp_path / "mnt" / "ix", tmp_path / "mnt" / "photos" / "ix"):
        assert all(path.startswith(str(tmp_path / "mnt")) and os.path.isfile(path) for path in images(index))
        with IndexReader.open(index) as reader:
            key = str(tmp_path / "mnt" / "photos" / "1" / "1.jpg")
            shard, row = reader.find("image", key) or (-1, -1)
            assert reader.entry("image", shard, row)["record"]["path"] == key
            assert [item.key for block, _ in reader.items("image") for item in block if item.key == key] == [key]
        report = synced(index, encoder)
        assert (report.embedded, report.unchanged, report.vanished, encoder.images) == (0, 4, 0, seen)
        photo(tmp_path / "mnt" / "photos" / "new.jpg", 9)
        assert synced(index, encoder).vanished == 0 and len(images(index)) == 5 and verify(index).ok
        (tmp_path / "mnt" / "photos" / "new.jpg").unlink()
        seen = encoder.images
    remove(tmp_path / "mnt" / "ix", under=[tmp_path / "mnt" / "photos" / "1"])
    assert names(tmp_path / "mnt" / "ix") == ["2.jpg", "4.jpg", "new.jpg"]


def test_a_new_folder_where_the_old_one_was(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    build(tmp_path / "a", index, encoder)
    (tmp_path / "a").rename(tmp_path / "b")
    move(index, tmp_path / "a", tmp_path / "b")
    photo(tmp_path / "a" / "0" / "2.jpg", 7)  # the name of one that moved
    build(tmp_path / "a", index, encoder)
    assert len(images(index)) == 5 and len(set(images(index))) == 5
    report = synced(index, encoder)
    assert report.unchanged == 5 and verify(index).ok
    (tmp_path / "b").rename(tmp_path / "c")
    move(index, tmp_path / "b", tmp_path / "c")
    assert synced(index, encoder).unchanged == 5 and all(os.path.isfile(path) for path in images(index))


def test_moves_that_cannot_be(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "a")
    library(tmp_path / "b")
    photo(tmp_path / "other" / "x.jpg", 9)
    build([tmp_path / "a", tmp_path / "b"], index, encoder)
    for old, new, complaint in (
        ("nowhere", "b", "no source of the index"),
        ("a", "missing", "no such folder"),
        ("a", "a", "there already"),
        ("a", "b", "in the index already"),
        ("a", "b/0", "in the index already"),
        ("a", "other", "holds none of the files"),
    ):
        with pytest.raises(UsageError, match=complaint):
            move(index, tmp_path / old, tmp_path / new)
    assert len(images(index)) == 8


def test_moving_a_folder_above_several(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "mnt" / "a")
    library(tmp_path / "mnt" / "b")
    one = photo(tmp_path / "mnt" / "c" / "one.jpg", 9)
    build([tmp_path / "mnt" / "a", tmp_path / "mnt" / "b"], index, encoder)
    added(one, index, encoder)
    (tmp_path / "mnt").rename(tmp_path / "media")
    move(index, tmp_path / "mnt", tmp_path / "media")
    assert len(images(index)) == 9 and all(os.path.isfile(path) for path in images(index))
    assert synced(index, encoder).unchanged == 9


# -- one folder, one name ----------------------------------------------------------------------------------------


def test_one_folder_under_two_names(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "real", index, encoder)
    report = build(tmp_path / "link", index, encoder)
    assert len(images(index)) == 4 and "under another name" in report.notes[0] and kinds(index) == {"real": "folder"}
    (tmp_path / "inner").symlink_to("real/1")
    assert len(images(index)) == 4 and build(tmp_path / "inner", index, encoder).embedded == 0
    assert len(images(index)) == 4
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "again").symlink_to(tmp_path / "real")
    photo(tmp_path / "above" / "own.jpg", 8)
    build(tmp_path / "above", index, encoder)
    assert len(images(index)) == 5 and synced(index, encoder).notes == []


def test_an_older_index_of_two_names_is_mended(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    library(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "real", index, encoder)
    with IndexWriter.existing(index) as writer:
        (source,) = writer.sources
        link = replace(source, path=str(tmp_path / "link"), given="link", inode=0)
        for key, state in list(writer.states_under("image", str(tmp_path / "real"))):
            other = key.replace("/real/", "/link/")
            record = {**(writer.record("image", key) or {}), "path": other}
            writer.put("image", Item(other, state.content, state.size, state.mtime_ns, record))
        writer.set_sources([source, link])
        writer.commit()
    assert len(images(index)) == 8
    report = synced(index, encoder)
    assert len(images(index)) == 4 and "is indexed once now" in report.notes[0]
    assert synced(index, encoder).notes == []
