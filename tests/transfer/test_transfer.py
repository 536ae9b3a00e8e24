"""Exports hold everything and come back as the same index; foreign vectors become searchable; bad files are named."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import CorpusError, IndexIncompatibleError, UsageError
from brivl_search.index import EncoderInfo, IndexReader, verify
from brivl_search.transfer.export import export
from brivl_search.transfer.formats import Kind
from brivl_search.transfer.imports import import_folder, import_vectors
from tests.support.building import build, images, texts
from tests.support.pictures import jpeg, write_corpus, write_lines
from tests.support.stub import StubEncoder

ENCODER = EncoderInfo("stub", "stub-fingerprint", 32)


def encode(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("nothing is to be tuned here")


def answers(index: Path) -> list[tuple[str, float]]:
    query = StubEncoder().encode_texts(["a red circle"])
    with IndexReader.open(index) as reader:
        found = reader.search("image", query, 5)
        places = zip(found.shards[0].tolist(), found.rows[0].tolist(), strict=True)
        paths = [reader.record("image", shard, row)["path"] for shard, row in places]
    return list(zip(paths, found.scores[0].tolist(), strict=True))


@pytest.fixture
def index(tmp_path: Path, encoder: StubEncoder) -> Path:
    paths = write_corpus(tmp_path / "photos", 12)
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg())
    build(tmp_path / "photos", tmp_path / "index", encoder, shard_rows=5)
    paths[0].unlink()
    build(tmp_path / "photos", tmp_path / "index", encoder)
    return tmp_path / "index"


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_there_and_back(index: Path, tmp_path: Path, kind: Kind, encoder: StubEncoder) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    assert export(index, tmp_path / "out", kind) == {"image": 12, "text": 44}
    report = import_folder(tmp_path / "out", tmp_path / "again", encode)
    assert (report.image.live, report.text.live) == (12, 44) and verify(tmp_path / "again").ok
    assert answers(tmp_path / "again") == answers(index)
    assert images(tmp_path / "again") == images(index) and texts(tmp_path / "again") == texts(index)
    encoder.images = 0
    assert build(tmp_path / "photos", tmp_path / "again", encoder).unchanged == 12 and encoder.images == 0
    assert not import_folder(tmp_path / "out", tmp_path / "again", encode).image.added  # the same again changes nothing


def test_what_lies_in_an_npy_export(index: Path, tmp_path: Path) -> None:
    export(index, tmp_path / "out", "npy")
    vectors = np.load(tmp_path / "out" / "image.npy")
    lines = [json.loads(line) for line in (tmp_path / "out" / "image.jsonl").read_text("utf-8").splitlines()]
    assert vectors.dtype == np.float16 and vectors.shape == (12, 32) and len(lines) == 12
    with IndexReader.open(index) as reader:
        for line, vector in zip(lines, vectors, strict=True):
            place = reader.find("image", line["key"])
            assert place is not None and np.array_equal(reader.vector("image", *place), vector)
            assert line["size"] == os.stat(line["key"]).st_size and line["record"] == reader.record("image", *place)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["fingerprint"] == "stub-fingerprint"
    with pytest.raises(UsageError, match="exists"):
        export(index, tmp_path / "out", "npy")


def test_an_index_of_another_encoder_is_refused(index: Path, tmp_path: Path) -> None:
    export(index, tmp_path / "out", "npy")
    build(tmp_path / "photos", tmp_path / "other", StubEncoder("other", "other-fingerprint"))
    with pytest.raises(IndexIncompatibleError, match="of encoder 'other'"):
        import_folder(tmp_path / "out", tmp_path / "other", encode)


def foreign(tmp_path: Path, vectors: np.ndarray, lines: list[dict[str, object]]) -> tuple[Path, Path]:
    np.save(tmp_path / "v.npy", vectors)
    return tmp_path / "v.npy", write_lines(tmp_path / "r.jsonl", lines)


def test_vectors_made_elsewhere(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 4, with_captions=False)
    vectors = 3 * np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)  # not of unit length
    lines: list[dict[str, object]] = [{"path": "photos/images/" + paths[i].name, "camera": "X"} for i in range(2)]
    files = foreign(tmp_path, vectors, [*lines, {"path": "elsewhere/c.jpg"}])
    report = import_vectors(*files, "image", tmp_path / "index", ENCODER, encode)
    assert report.image.live == 3
    with IndexReader.open(tmp_path / "index") as reader:
        place = reader.find("image", str(paths[1]))
        assert place is not None and reader.record("image", *place)["camera"] == "X"
        assert np.allclose(reader.vector("image", *place), vectors[1] / np.linalg.norm(vectors[1]), atol=1e-3)
    report = build(tmp_path / "photos", tmp_path / "index", encoder)
    assert (report.unchanged, report.embedded) == (2, 2)  # a file whose vector was brought along is not embedded again
    said: list[dict[str, object]] = [{"text": "一只狗", "image": "photos/images/" + paths[0].name, "field": "zh"}] * 3
    same = np.repeat(vectors[:1], 3, axis=0)
    import_vectors(*foreign(tmp_path, same, said), "text", tmp_path / "index", ENCODER, encode)
    assert texts(tmp_path / "index") == [(paths[0].name, "zh", "一只狗")]


@pytest.mark.parametrize(
    ("vectors", "lines", "says"),
    [
        (np.ones((2, 32), np.float32), [{"path": "a"}], "1 lines for 2 rows"),
        (np.ones((1, 32), np.float32), [{"path": "a"}, {"path": "b"}], "more lines than the 1 rows"),
        (np.zeros((1, 32), np.float32), [{"path": "a"}], "row 1 has no direction"),
        (np.full((1, 32), np.nan, np.float16), [{"path": "a"}], "row 1 has no direction"),
        (np.ones((1, 32), np.float32), [{"text": "a"}], r"r\.jsonl:1: no `path`"),
        (np.ones((1, 31), np.float32), [{"path": "a"}], r"float32 \(1, 31\); encoder stub makes float \(rows, 32\)"),
        (np.ones((1, 32), np.int8), [{"path": "a"}], "int8"),
    ],
)
def test_bad_files_change_nothing(
    tmp_path: Path, vectors: np.ndarray, lines: list[dict[str, object]], says: str, encoder: StubEncoder
) -> None:
    write_corpus(tmp_path / "photos", 2)
    build(tmp_path / "photos", tmp_path / "index", encoder)
    here = images(tmp_path / "index")
    with pytest.raises((CorpusError, UsageError), match=says):
        import_vectors(*foreign(tmp_path, vectors, lines), "image", tmp_path / "index", ENCODER, encode)
    assert images(tmp_path / "index") == here
    assert build(tmp_path / "photos", tmp_path / "index", encoder).unchanged == 2
    assert images(tmp_path / "index") == here  # nothing of the refused import slips in later


def test_no_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder that export wrote"):
        import_folder(tmp_path, tmp_path / "index", encode)
    with pytest.raises(UsageError, match=r"gone\.npy"):
        import_vectors(tmp_path / "gone.npy", tmp_path / "r", "image", tmp_path / "index", ENCODER, encode)


def test_a_folder_that_cannot_be_made(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / ("x" * 250), tmp_path / "file" / "out"):
        with pytest.raises(UsageError, match="in a folder that you can write to"):
            export(index, out, "npy")
