"""Caption files that were saved in another encoding: nothing is read wrongly, and nothing that was known is lost."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from brivl_search.corpus.text import BadLine, text_lines
from tests.ingest.test_sources import photo, synced
from tests.support.building import build, images, texts
from tests.support.stub import StubEncoder

LINES = {"1.jpg": "狗", "2.jpg": "猫", "3.jpg": "cat"}  # 猫 in GBK is è in UTF-8
KNOWN = [("1.jpg", "zh", "狗"), ("2.jpg", "zh", "猫"), ("3.jpg", "zh", "cat")]


def write(path: Path, encoding: str, lines: dict[str, str] = LINES) -> None:
    text = "".join(
        json.dumps({"image": image, "zh": caption, "split": image}, ensure_ascii=False) + "\n"
        for image, caption in lines.items()
    )
    path.write_bytes(text.encode(encoding))


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_captions_stay_when_their_file_is_no_utf_8_any_more(
    encoding: str, tmp_path: Path, encoder: StubEncoder
) -> None:
    index, file = tmp_path / "ix", tmp_path / "p" / "captions.jsonl"
    for number, name in enumerate(LINES):
        photo(tmp_path / "p" / name, number)
    write(file, "utf-8")
    build(tmp_path / "p", index, encoder)
    assert texts(index) == KNOWN
    write(file, encoding)
    report = synced(index, encoder)
    assert texts(index) == KNOWN and report.captions_removed == 0
    assert any("captions.jsonl is not all UTF-8" in note and "`encoding`" in note for note in report.notes)
    write(file, encoding, {name: LINES[name] for name in ("1.jpg", "3.jpg")})
    synced(index, encoder, encoding=encoding)
    assert texts(index) == [KNOWN[0], KNOWN[2]]  # once it can be read, it says all there is to say


def test_a_line_that_is_utf_8_by_chance_is_not_believed_in_a_file_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("狗狗在草地上\n猫\ncat\n".encode("gbk"))
    found = [line for _, line in text_lines(str(tmp_path / "a.txt"))]
    assert [line.reason if isinstance(line, BadLine) else line for line in found] == ["invalid UTF-8"] * 2 + ["cat"]
    assert all("GBK" in line.detail for line in found if isinstance(line, BadLine))
    (tmp_path / "b.txt").write_bytes("狗在草地上\n".encode() + "狗\n".encode("gbk") + "猫\n".encode())
    found = [line for _, line in text_lines(str(tmp_path / "b.txt"))]
    assert [isinstance(line, BadLine) for line in found] == [False, True, False]


def test_a_row_of_a_table_and_a_member_of_a_tar_keep_their_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    index = tmp_path / "ix"
    for number, name in enumerate(LINES):
        photo(tmp_path / "im" / name, number)

    def fill(good: str, encoding: str) -> None:
        rows = [b"image,caption\n", b"im/1.jpg,dog\n", *(f"im/2.jpg,{word}\n".encode() for word in ("一只很大的猫",))]
        (tmp_path / "d.csv").write_bytes(b"".join([*rows, f"im/3.jpg,{good}\n".encode(encoding)]))
        with tarfile.open(tmp_path / "d.tar", "w") as tar:
            for name, data in (
                ("k.jpg", (tmp_path / "im" / "1.jpg").read_bytes()),
                ("k.txt", good.encode(encoding)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

    fill("狗在草地上", "utf-8")
    build([tmp_path / "d.csv", tmp_path / "d.tar"], index, encoder)
    before = texts(index)
    assert len(before) == 4 and [text for *_, text in before].count("狗在草地上") == 2
    fill("狗在草地上", "gbk")
    report = synced(index, encoder)
    assert texts(index) == before and report.captions_removed == 0 and len(images(index)) == 4
