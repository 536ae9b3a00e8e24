"""What a build takes in, leaves alone, gives up and names: with an encoder that counts its work."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus import decode_pool, decode_worker
from brivl_search.errors import CorpusError, ImageError, UsageError
from brivl_search.index import IndexReader, verify
from brivl_search.ingest import images as image_stage
from tests.support.building import build, checksums, contents, images, settle, texts
from tests.support.pictures import draw, jpeg, write_bad_files, write_corpus
from tests.support.stub import StubEncoder

# -- what changes ------------------------------------------------------------------------------------------------


def test_second_build_embeds_nothing_and_writes_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 12)
    index = tmp_path / "index"
    first = build(tmp_path / "photos", index, encoder)
    assert (first.found, first.embedded, first.reused, first.unchanged) == (12, 12, 0, 0)
    assert (first.captions, first.captions_embedded) == (48, 48)
    assert encoder.images == 12 and len(encoder.texts) == 48
    assert images(index) == sorted(map(str, paths))
    before = contents(index)
    again = build(tmp_path / "photos", index, encoder)
    assert (again.found, again.unchanged, again.embedded, again.reused) == (12, 12, 0, 0)
    assert (again.captions, again.captions_embedded, again.captions_removed) == (48, 0, 0)
    assert again.commit is not None and not again.commit.changed
    assert encoder.images == 12 and len(encoder.texts) == 48
    assert contents(index) == before
    assert verify(index).ok and not verify(index).leftovers


def test_new_changed_vanished_renamed_copied_touched(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 10, with_captions=False)
    build(folder, index, encoder)
    assert encoder.images == 10

    draw("red", "ring", seed=99).save(folder / "new.png")  # embedded
    draw("black", "cross", seed=98).save(paths[0])  # changed: embedded
    settle(paths[0])
    paths[1].unlink()  # vanished
    paths[2].rename(folder / "renamed.jpg")  # reused, and its old name vanished
    shutil.copy(paths[3], folder / "copy.jpg")  # reused
    settle(paths[4])  # touched: reused
    report = build(folder, index, encoder)
    assert (report.found, report.embedded, report.reused, report.unchanged, report.vanished) == (11, 2, 3, 6, 2)
    assert encoder.images == 12 and not report.skipped

    expected = {*map(str, paths[:1] + paths[3:]), *(str(folder / n) for n in ("new.png", "renamed.jpg", "copy.jpg"))}
    assert set(images(index)) == expected
    again = build(folder, index, encoder)
    assert (again.unchanged, again.embedded, again.reused, again.vanished) == (11, 0, 0, 0)
    assert encoder.images == 12
    assert verify(index).ok

    def stored(path: Path) -> np.ndarray:
        with IndexReader.open(index) as reader:
            place = reader.find("image", str(path))
            assert place is not None
            return np.array(reader.vector("image", *place))

    assert (stored(folder / "copy.jpg") == stored(paths[3])).all()
    assert not (stored(paths[0]) == stored(paths[3])).all()
    fresh = StubEncoder()
    build(folder, tmp_path / "fresh", fresh)
    assert fresh.images == 11 - 1  # the copy costs nothing
    with IndexReader.open(tmp_path / "fresh") as reader:
        for path in images(index):
            place = reader.find("image", path)
            assert place is not None
            assert (reader.vector("image", *place) == stored(Path(path))).all(), path


def test_same_content_many_times_is_embedded_once(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(20):  # across several batches
        (folder / f"{n:02d}.jpg").write_bytes(jpeg(colour="red" if n % 2 else "blue"))
    report = build(folder, tmp_path / "index", encoder, batch_size=2)
    assert (report.embedded, report.reused, encoder.images) == (2, 18, 2)
    assert len(images(tmp_path / "index")) == 20


def test_file_replaced_by_one_of_the_same_size(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    folder.mkdir()
    kinds = [draw(colour, "square", (8, 8)) for colour in ("red", "blue")]
    kinds[0].save(folder / "one.bmp")
    size = (folder / "one.bmp").stat().st_size
    build(folder, index, encoder)
    kinds[1].save(folder / "one.bmp")
    settle(folder / "one.bmp")
    assert (folder / "one.bmp").stat().st_size == size
    report = build(folder, index, encoder)
    assert (report.embedded, report.unchanged, encoder.images) == (1, 0, 2)


def test_touched_file_is_not_even_decoded(
    tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_corpus(tmp_path / "photos", 3, with_captions=False)
    build(tmp_path / "photos", tmp_path / "index", encoder)
    settle(paths[1])
    seen = []

    def decode_all(*arguments: Any, **options: Any) -> Any:
        for decoded in decode_pool.decode_all(*arguments, **options):
            seen.append((decoded.file.path, decoded.known, decoded.pixels is None))
            yield decoded

    monkeypatch.setattr(image_stage, "decode_all", decode_all)
    assert build(tmp_path / "photos", tmp_path / "index", encoder).reused == 1
    assert seen == [(str(paths[1]), True, True)]


def test_batches(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 10, with_captions=False)
    build(tmp_path / "photos", tmp_path / "index", encoder, batch_size=4)
    assert encoder.calls == 3 and encoder.images == 10


def test_worker_processes_give_the_same_index(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 20)
    write_bad_files(tmp_path / "photos" / "bad")
    here = build(tmp_path / "photos", tmp_path / "here", encoder, workers=0)
    there = build(tmp_path / "photos", tmp_path / "there", encoder, workers=2, batch_size=3)
    assert checksums(tmp_path / "here") == checksums(tmp_path / "there")
    assert here.skipped == there.skipped and (here.embedded, here.reused) == (there.embedded, there.reused)


def test_other_folders_of_the_index_stay(tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("a"), 4)
    write_corpus(Path("ab"), 3)  # not inside of a, whatever the letters say
    index = tmp_path / "index"
    build(Path("a"), index, encoder)
    report = build(Path("ab"), index, encoder)
    assert (report.found, report.vanished, report.captions_removed) == (3, 0, 0)
    with IndexReader.open(index) as reader:
        assert (reader.count("image"), reader.count("text")) == (7, 28)
        assert reader.info.roots == (("a", str(tmp_path / "a")), ("ab", str(tmp_path / "ab")))
    shutil.rmtree("a/images")
    Path("a/left.jpg").write_bytes(jpeg())
    report = build(Path("a"), index, encoder)
    assert (report.vanished, report.captions_removed) == (4, 16)
    with IndexReader.open(index) as reader:
        assert (reader.count("image"), reader.count("text")) == (4, 12)


def test_subfolder_alone_keeps_the_captions_of_the_file_above(tmp_path: Path, encoder: StubEncoder) -> None:
    """FOLDER/captions.jsonl is outside of FOLDER/images: a build of the latter says nothing about it."""
    write_corpus(tmp_path / "photos", 4)
    index = tmp_path / "index"
    build(tmp_path / "photos", index, encoder)
    before = texts(index)
    report = build(tmp_path / "photos" / "images", index, encoder)
    assert report.captions_removed == 0
    assert texts(index) == before


# -- what cannot be indexed --------------------------------------------------------------------------------------


def test_every_bad_file_is_skipped_and_named(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    good = write_corpus(folder, 5, with_captions=False)
    expected = {str(folder / "bad" / name): reason for name, reason in write_bad_files(folder / "bad").items()}
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "folder.jpg").mkdir()  # a folder, whatever its name says
    expected |= {str(folder / "pipe.jpg"): "not a regular file", str(folder / "link.jpg"): "broken link"}
    report = build(folder, index, encoder)
    assert {skip.path: skip.reason for skip in report.skipped} == expected
    assert dict(report.skip_counts()) == dict(Counter(expected.values()))
    counts = [count for _, count in report.skip_counts()]
    assert counts == sorted(counts, reverse=True)
    assert images(index) == sorted(map(str, good)) and encoder.images == 5
    again = build(folder, index, encoder)  # named again, and nothing embedded
    assert {skip.path for skip in again.skipped} == set(expected)
    assert encoder.images == 5 and again.unchanged == 5


def test_pixel_limit(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "small.jpg").write_bytes(jpeg((90, 90)))
    (folder / "large.jpg").write_bytes(jpeg((110, 110)))
    report = build(folder, tmp_path / "index", encoder, max_megapixels=0.01)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(str(folder / "large.jpg"), "too large")]


def test_only_bad_files_make_no_index(tmp_path: Path, encoder: StubEncoder) -> None:
    """Every file was tried and none could be read: the index holds nothing, and the reasons say why."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "text.jpg").write_bytes(b"no image")
    report = build(tmp_path / "photos", tmp_path / "index", encoder)
    assert report.embedded == 0 and report.skip_counts() == [("not an image", 1)]


def test_corrupt_goes_and_unreadable_stays(
    tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 6)
    build(folder, index, encoder)
    paths[0].write_bytes(paths[0].read_bytes()[:300])  # its content is no image any more
    settle(paths[1])  # will be opened, and cannot be read now
    settle(paths[2])
    read = decode_worker.read_file
    refused = {str(paths[1]): "permission denied", str(paths[2]): "read error"}

    def read_file(path: str, **options: Any) -> bytes:
        if path in refused:
            raise ImageError(refused[path])
        return read(path, **options)

    monkeypatch.setattr(decode_worker, "read_file", read_file)
    report = build(folder, index, encoder)
    reasons = {skip.path: skip.reason for skip in report.skipped}
    assert reasons.keys() == {*refused, str(paths[0])}
    assert reasons[str(paths[0])] in ("truncated", "corrupt")
    assert report.kept_unreadable == 2
    assert images(index) == sorted(map(str, paths[1:]))
    assert {name for name, _, _ in texts(index)} == {path.name for path in paths[1:]}
    assert [line.split(": ", 1)[0] for line in report.bad_captions] == [f"{folder / 'captions.jsonl'}:1"]
    monkeypatch.undo()
    report = build(folder, index, encoder)  # readable again, the same content
    assert (report.reused, report.embedded, report.kept_unreadable) == (2, 0, 0)
    assert encoder.images == 6


def test_unreadable_folder_keeps_images_and_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    """A link to a disk that is not mounted now: what the index holds of it stays, captions too."""
    folder, index = tmp_path / "photos", tmp_path / "index"
    write_corpus(folder, 3)
    write_corpus(tmp_path / "disk", 4)
    (folder / "disk").symlink_to(tmp_path / "disk")
    build(folder, index, encoder)
    before = (images(index), texts(index))
    assert len(before[0]) == 7 and len(before[1]) == 28
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    report = build(folder, index, encoder)
    assert (report.vanished, report.kept_unreadable, report.captions_removed) == (0, 4, 0)
    assert (images(index), texts(index)) == before
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    build(folder, index, encoder)
    assert encoder.images == 4 and len(encoder.texts) == len(set(encoder.texts))  # nothing twice
    shutil.rmtree(tmp_path / "disk")
    (folder / "disk").unlink()  # now it is gone for good
    report = build(folder, index, encoder)
    assert (report.vanished, report.captions_removed) == (4, 16)


def test_empty_folder_loses_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    write_corpus(folder, 5)
    build(folder, index, encoder)
    before = contents(index)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(CorpusError, match=r"no images.*photos is empty"):
        build(folder, index, encoder)
    (folder / "notes.txt").write_text("nothing here")
    with pytest.raises(CorpusError, match="1 file but no images"):
        build(folder, index, encoder)
    assert contents(index) == before
    assert len(images(index)) == 5


def test_empty_folder_beside_a_full_one_loses_nothing(tmp_path: Path, encoder: StubEncoder) -> None:
    """The mount point of a disk that is not there, given together with another folder."""
    full, disk, index = tmp_path / "full", tmp_path / "disk", tmp_path / "index"
    write_corpus(full, 3)
    write_corpus(disk, 5)
    build([full, disk], index, encoder)
    before = (images(index), texts(index))
    shutil.rmtree(disk)
    disk.mkdir()
    report = build([full, disk], index, encoder)
    assert (report.vanished, report.kept_unreadable, report.captions_removed) == (0, 5, 0)
    assert (images(index), texts(index)) == before


def test_missing_folder(tmp_path: Path, encoder: StubEncoder) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        build(tmp_path / "nowhere", tmp_path / "index", encoder)
    assert not (tmp_path / "index").exists()
