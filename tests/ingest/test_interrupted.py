"""Interruption, other writers, other encoders, readers meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import BrivlSearchError, IndexIncompatibleError
from brivl_search.index import IndexReader, IndexWriter, Item, verify
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import add
from tests.support.building import Silent, build, checksums, contents, images, texts
from tests.support.pictures import jpeg, write_corpus, write_lines
from tests.support.stub import StubEncoder


class Breaks(StubEncoder):
    """Fails in its nth call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.calls + 1 == self.at:
            raise KeyboardInterrupt
        return super().encode_images(pixels)


def test_interrupted_build_goes_on_where_it_was(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    write_corpus(folder, 30)
    breaks = Breaks(at=6)
    with pytest.raises(KeyboardInterrupt):
        build(folder, index, breaks, batch_size=4)
    assert breaks.images == 20
    report = build(folder, index, encoder, batch_size=4)
    assert (report.unchanged, report.embedded, encoder.images) == (20, 10, 10)
    build(folder, tmp_path / "undisturbed", StubEncoder())
    assert checksums(index) == checksums(tmp_path / "undisturbed")


def test_file_gone_between_interruption_and_rerun(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 12)
    with pytest.raises(KeyboardInterrupt):
        build(folder, index, Breaks(at=3), batch_size=4)
    paths[0].unlink()  # was staged
    paths[11].unlink()  # was not
    build(folder, index, encoder)
    assert images(index) == sorted(map(str, paths[1:11])) and encoder.images == 3
    assert {name for name, _, _ in texts(index)} == {path.name for path in paths[1:11]}
    assert verify(index).ok


def test_one_build_at_a_time(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 3)
    index = tmp_path / "index"
    options = {"encoder_name": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
    with (
        IndexWriter(index, **options),  # type: ignore[arg-type]
        pytest.raises(BrivlSearchError, match=rf"another build is writing .*index \(pid {os.getpid()}\)") as caught,
    ):
        build(tmp_path / "photos", index, encoder)
    assert caught.value.exit_code == 1
    assert encoder.images == 0
    assert build(tmp_path / "photos", index, encoder).embedded == 3


def test_index_of_another_encoder_is_refused(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 3)
    index = tmp_path / "index"
    build(tmp_path / "photos", index, encoder)
    before = contents(index)
    other = StubEncoder("other", "other-fingerprint")
    with pytest.raises(IndexIncompatibleError, match=r"of encoder 'stub'.*use `encoder` stub") as caught:
        build(tmp_path / "photos", index, other)
    assert caught.value.exit_code == 3
    assert contents(index) == before and other.images == 0


def test_readers_see_the_old_generation_until_the_commit(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 6)
    build(folder, index, encoder)
    with IndexReader.open(index) as reader:
        paths[0].unlink()
        (folder / "new.jpg").write_bytes(jpeg())
        build(folder, index, encoder)
        assert reader.stale()
        there = {record["path"] for _, _, record in reader.records("image")}
        assert there == set(map(str, paths))
    assert str(paths[0]) not in images(index)


def test_names_that_are_not_utf8(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.jpg")
    (folder / name).write_bytes(jpeg())
    (folder / "新年 photo\n.jpg").write_bytes(jpeg(colour="blue"))
    (folder / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"no image")
    report = build(folder, index, encoder)
    assert report.embedded == 2 and len(report.skipped) == 1
    assert images(index) == sorted([str(folder / name), str(folder / "新年 photo\n.jpg")])
    assert build(folder, index, encoder).unchanged == 2


def test_inputs_of_add_that_changed_between_interruption_and_rerun(tmp_path: Path, encoder: StubEncoder) -> None:
    """What was staged of a file or a caption that is gone by now is not published."""
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 12)
    with pytest.raises(KeyboardInterrupt):
        add([folder], index, Breaks(at=3), BuildOptions(workers=0, batch_size=4), Silent())
    paths[0].unlink()
    add([folder], index, encoder, BuildOptions(workers=0, batch_size=4), Silent())
    assert images(index) == sorted(map(str, paths[1:])) and encoder.images == 4
    assert {name for name, _, _ in texts(index)} == {path.name for path in paths[1:]}
    assert verify(index).ok
    lines = write_lines(tmp_path / "more.jsonl", [{"image": str(paths[1]), "en": "wrong"}])
    with IndexWriter(
        index, encoder_name=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim, job=f"add\0{lines}"
    ) as writer:
        writer.stage_vectors("text", ["c"], np.ones((1, encoder.dim)) / encoder.dim**0.5)
        writer.put("text", Item(f"{paths[1]}\0en\0wrong", "c", record={"text": "wrong", "field": "en", "image": ""}))
    write_lines(lines, [{"image": str(paths[1]), "en": "right"}])
    add([lines], index, encoder, BuildOptions(workers=0), Silent())
    said = [text for name, field, text in texts(index) if name == paths[1].name and field == "en"]
    assert "right" in said and not [text for *_, text in texts(index) if text == "wrong"]
