"""Captions come, change and go with their images; bad lines are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.building import build, images, texts
from tests.support.pictures import captions, jpeg, write_corpus, write_lines
from tests.support.stub import StubEncoder


def test_captions_come_change_and_go(tmp_path: Path, encoder: StubEncoder) -> None:
    folder, index = tmp_path / "photos", tmp_path / "index"
    names = [path.name for path in write_corpus(folder, 3, with_captions=False)]

    def write(*lines: dict[str, Any]) -> None:
        write_lines(folder / "captions.jsonl", [{**line, "image": f"images/{line['image']}"} for line in lines])

    write({"image": names[0], "zh": ["红色圆形", "图一"], "en": "red circle"}, {"image": names[1], "en": "two"})
    report = build(folder, index, encoder)
    assert (report.captions, report.captions_embedded, report.captions_removed) == (4, 4, 0)

    write({"image": names[0], "zh": ["红色圆形"], "en": "a red circle"}, {"image": names[2], "captions": ["two"]})
    report = build(folder, index, encoder)
    assert (report.captions, report.captions_embedded, report.captions_removed) == (3, 1, 3)  # "two" is known
    assert texts(index) == sorted(
        [(names[0], "zh", "红色圆形"), (names[0], "en", "a red circle"), (names[2], "captions", "two")]
    )
    assert encoder.texts.count("two") == 1 and encoder.images == 3

    build(folder, index, encoder, caption_fields=("zh",))
    assert texts(index) == [(names[0], "zh", "红色圆形")]
    build(folder, index, encoder)
    assert len(texts(index)) == 1  # the folder remembers what it is read with
    build(folder, index, encoder, caption_fields=())
    assert len(texts(index)) == 3

    (folder / "images" / names[0]).unlink()  # with an image its captions go
    report = build(folder, index, encoder)
    assert (report.vanished, report.captions_removed, len(report.bad_captions)) == (1, 2, 1)
    assert texts(index) == [(names[2], "captions", "two")]
    (folder / "captions.jsonl").unlink()
    report = build(folder, index, encoder)
    assert (report.captions, report.captions_removed) == (0, 1)
    assert texts(index) == [] and len(images(index)) == 2


def test_bad_caption_lines_are_named_by_file_and_line(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    write_corpus(folder, 2, with_captions=False)
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    good = '{"image": "images/0000-red-circle.jpg", "en": "fine"}'
    lines = [
        good.encode(),
        b"{not json",
        b"",
        b"\xff\xfe",
        b'["a list"]',
        b'{"en": "no image"}',
        b'{"image": "images/missing.jpg", "en": "of nothing"}',
        b'{"image": "images/broken.jpg", "en": "of a broken file"}',
        b'{"image": "images/0000-red-circle.jpg", "title": "another field"}',
        b'{"image": "images/0000-red-circle.jpg", "en": ["ok", 7]}',
        b'{"image": "images/0001-green-circle.jpg", "en": "fine too"}',
    ]
    (folder / "captions.jsonl").write_bytes(b"\n".join(lines))
    report = build(folder, tmp_path / "index", encoder)
    where = folder / "captions.jsonl"
    numbers = (2, 4, 5, 6, 7, 8, 9, 10)
    assert [line.split(": ", 1)[0] for line in report.bad_captions] == [f"{where}:{n}" for n in numbers]
    assert [text for _, _, text in texts(tmp_path / "index")] == ["fine", "fine too"]


def test_caption_file_in_another_folder_of_the_build(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 2, with_captions=False)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "any.jpg").write_bytes(jpeg())
    lines = [
        {"image": str(paths[0]), "en": "by absolute path"},
        {"image": f"../photos/images/{paths[1].name}", "en": "x"},
    ]
    write_lines(tmp_path / "words" / "captions.jsonl", lines)
    report = build([tmp_path / "photos", tmp_path / "words"], tmp_path / "index", encoder)
    assert report.bad_captions == [] and report.captions == 2


def test_cut_captions_are_counted(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    paths = write_corpus(folder, 1, with_captions=False)
    write_lines(folder / "captions.jsonl", [{"image": f"images/{paths[0].name}", "en": ["short", "long " * 20]}])
    assert build(folder, tmp_path / "index", encoder).cut_captions == 1


def test_same_caption_for_two_images_is_two_rows_and_one_vector(tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    paths = write_corpus(folder, 2, with_captions=False)
    write_lines(folder / "captions.jsonl", [{"image": f"images/{p.name}", **captions("red", "ring")} for p in paths])
    report = build(folder, tmp_path / "index", encoder)
    assert (report.captions, report.captions_embedded, len(encoder.texts)) == (8, 4, 4)
    assert len(texts(tmp_path / "index")) == 8
