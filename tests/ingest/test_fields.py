"""What records carry beside path and text: when a picture was taken, and the extra fields of caption lines."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.exif import taken
from brivl_search.corpus.fields import MAX_FIELDS, MAX_VALUES, Fields, merge, scalars, scalars_and_lists
from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.index import EncoderInfo, IndexReader, verify
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import add
from brivl_search.search.allowed import allowed
from brivl_search.search.filters import Filter
from brivl_search.transfer.imports import import_vectors
from tests.support.building import Silent, build, checksums, settle
from tests.support.pictures import draw, encoded, write_corpus, write_lines
from tests.support.stub import StubEncoder

ORIGINAL, DATE_TIME = "2021:07:03 18:22:05", "2022:01:01 00:00:00"


def records(index: Path, modality: Any = "image") -> dict[str, dict[str, Any]]:
    with IndexReader.open(index) as reader:
        rows = [record for _, _, record in reader.records(modality)]
    return {Path(row["path"]).name if modality == "image" else row["text"]: row for row in rows}


def exif(original: str | None = None, date_time: str | None = None) -> Image.Exif:
    block = Image.Exif()
    if date_time is not None:
        block[0x0132] = date_time
    if original is not None:
        block.get_ifd(0x8769)[0x9003] = original
    return block


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_taken_is_read_where_the_file_is_open_anyway(kind: str) -> None:
    def when(*values: str | None) -> str:
        block = exif(*values)
        if kind == "TIFF" and values and values[0]:
            block[0x8769] = 0  # without it Pillow does not write the block into a TIFF
        return decode(encoded(draw("red", "ring"), kind, exif=block), PixelSpec(8)).taken

    assert when(ORIGINAL, DATE_TIME) == "2021-07-03T18:22:05"
    assert when(None, DATE_TIME) == "2022-01-01T00:00:00"
    assert when("0000:00:00 00:00:00", DATE_TIME) == "2022-01-01T00:00:00"  # a camera without a clock
    assert when("2021:13:03 18:22:05") == when("yesterday") == when() == ""


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # `decode` silences Pillow, which is called directly here
def test_damaged_exif_loses_the_time_and_not_the_picture() -> None:
    image = Image.open(io.BytesIO(encoded(draw("red", "ring"), "JPEG")))
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"
    assert taken(image) == ""


def test_scalars_are_short_printable_and_finite() -> None:
    line = {
        "split": "test", "license": 3, "score": 0.5, "ok": True, "nothing": None, "tags": ["a"], "box": {"x": 1},
        "long": "x" * 201, "fits": "x" * 200, "nan": float("nan"), "huge": 1 << 70, "lone": "\ud800", "zh": "狗",
    }  # fmt: skip
    assert scalars(line, {"zh"}) == {"split": "test", "license": 3, "score": 0.5, "ok": True, "fits": "x" * 200}
    assert len(scalars({str(n): n for n in range(1000)})) == MAX_FIELDS


def test_merged_fields_become_lists_where_they_disagree() -> None:
    fields: Fields = {}
    for more in ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": True, "b": "x"}, {"c": [1, 2]}):
        merge(fields, more)
    assert fields == {"a": [1, True], "b": ["x", "y"], "c": [1, 2]}
    for n in range(100):
        merge(fields, {"c": n})
    assert len(fields["c"]) == MAX_VALUES  # type: ignore[arg-type]


def test_fields_come_change_and_go_without_embedding(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 3, with_captions=False)
    names = [path.name for path in paths]

    def write(*lines: dict[str, Any]) -> None:
        write_lines(folder / "captions.jsonl", [{**line, "image": f"images/{line['image']}"} for line in lines])

    def fields() -> list[Any]:
        return [records(index)[name].get("fields") for name in names]

    build(folder, index, encoder)
    write({"image": names[0], "en": "one"}, {"image": names[1], "en": "two"})
    build(folder, index, encoder)
    plain = records(index)
    assert all(set(record) == {"path", "width", "height", "phash"} for record in plain.values())

    one = {"image": names[0], "en": "one", "split": "test", "license": 3, "zh": "一"}
    write(one, {"image": names[0], "en": "uno", "split": "test", "license": 4}, {"image": names[1], "en": "two"})
    build(folder, index, encoder)
    assert fields() == [{"split": "test", "license": [3, 4]}, None, None]
    words = records(index, "text")
    assert words["one"]["fields"] == words["一"]["fields"] == {"split": "test", "license": 3}
    assert words["uno"]["fields"] == {"split": "test", "license": 4} and "fields" not in words["two"]
    assert encoder.images == 3 and encoder.texts.count("one") == 1

    before = checksums(index)
    assert not build(folder, index, encoder).commit.changed  # type: ignore[union-attr]
    assert checksums(index) == before

    settle(paths[0])  # touched, not decoded: the record stays whole
    build(folder, index, encoder)
    assert records(index)[names[0]] == {**plain[names[0]], "fields": {"split": "test", "license": [3, 4]}}
    assert plain[names[0]]["width"] == 96

    write({**one, "split": "train"}, {"image": names[1], "en": "two", "split": "val"})
    build(folder, index, encoder)
    assert fields() == [{"split": "train", "license": 3}, {"split": "val"}, None]
    (folder / "captions.jsonl").unlink()
    build(folder, index, encoder)
    assert fields() == [None, None, None] and records(index, "text") == {}
    assert encoder.images == 3
    assert verify(index).ok


def test_add_joins_fields_and_forgets_none(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    paths = write_corpus(folder, 2, with_captions=False)
    name = f"images/{paths[0].name}"
    write_lines(folder / "captions.jsonl", [{"image": name, "en": "one", "split": "test"}])
    build(folder, index, encoder)
    more = write_lines(folder / "more.jsonl", [{"image": name, "zh": "一", "license": 3}])
    add([more], index, encoder, BuildOptions(workers=0), Silent())
    assert records(index)[paths[0].name]["fields"] == {"split": "test", "license": 3}
    assert set(records(index, "text")) == {"one", "一"}


def test_taken_is_in_the_record(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw("red", "ring").save(folder / "a.jpg", exif=exif(ORIGINAL))
    draw("blue", "ring").save(folder / "b.jpg")
    build(folder, tmp_path / "index", encoder, workers=1)
    found = records(tmp_path / "index")
    assert found["a.jpg"]["taken"] == "2021-07-03T18:22:05" and "taken" not in found["b.jpg"]
    settle(folder / "a.jpg")
    build(folder, tmp_path / "index", encoder, workers=1)
    assert records(tmp_path / "index")["a.jpg"] == found["a.jpg"]


def test_lists_of_a_caption_file_are_found_by_each_of_their_values(tmp_path: Path, encoder: StubEncoder) -> None:
    names = [path.name for path in write_corpus(tmp_path / "p", 3, with_captions=False)]
    tags: list[Any] = [["海", "dog", 7, 7, None, ["x"], {"y": 1}, "z" * 201, float("inf")], "dog", []]
    lines = [{"image": f"images/{name}", "en": "one", "tags": tag} for name, tag in zip(names, tags, strict=True)]
    write_lines(tmp_path / "p" / "captions.jsonl", lines)
    build(tmp_path / "p", tmp_path / "ix", encoder)
    found = records(tmp_path / "ix")
    assert [found[name].get("fields") for name in names] == [{"tags": ["海", "dog", 7]}, {"tags": "dog"}, None]
    with IndexReader.open(tmp_path / "ix") as reader:
        for value, rows in (("海", {0}), ("dog", {0, 1}), ("7", {0}), ("z", set())):
            for modality in ("image", "text"):
                (mask,) = allowed(reader, modality, Filter.of(where=[f"tags={value}"]))  # type: ignore[arg-type]
                assert mask.sum() == len(rows), (value, modality)
    assert not build(tmp_path / "p", tmp_path / "ix", encoder).commit.changed  # type: ignore[union-attr]
    many = scalars_and_lists({"n": list(range(1000)), **{str(n): [n] for n in range(1000)}})
    assert len(many["n"]) == MAX_VALUES and len(many) == MAX_FIELDS  # type: ignore[arg-type]


def test_what_an_import_gave_stays_when_builds_follow(tmp_path: Path, encoder: StubEncoder) -> None:
    paths, index = write_corpus(tmp_path / "p", 3, with_captions=False), tmp_path / "ix"
    write_lines(tmp_path / "r.jsonl", [{"path": str(path), "tag": "a", "fields": {"f": 1}} for path in paths])
    np.save(tmp_path / "v.npy", np.eye(3, 32, dtype=np.float32))
    about = EncoderInfo(encoder.name, encoder.fingerprint, encoder.dim)
    files = tmp_path / "v.npy", tmp_path / "r.jsonl"
    import_vectors(*files, "image", index, about, encoder.encode_texts)
    lines = [{"image": f"images/{paths[0].name}", "en": "one", "split": "test"}]
    write_lines(tmp_path / "p" / "captions.jsonl", lines)
    for round in range(3):
        build(tmp_path / "p", index, encoder)
        found = [records(index)[path.name] for path in paths]
        assert [record["tag"] for record in found] == ["a"] * 3
        assert [record["fields"] for record in found] == [{"f": 1, "split": "test"}, {"f": 1}, {"f": 1}]
        if round == 0:  # the picture is edited: what it shows is new, what was given is not
            draw("blue", "cross", (64, 48)).save(paths[1])
            settle(paths[1])
    assert (found[1]["width"], found[1]["height"]) == (64, 48) and "phash" in found[1] and encoder.images == 1
    paths[1].unlink()
    assert build(tmp_path / "p", index, encoder).vanished == 1
