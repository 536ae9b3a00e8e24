"""brivl_search.corpus.captions: good lines, bad lines, data sets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from brivl_search.corpus.captions import BadLine, CaptionLine, read_captions
from brivl_search.corpus.dataset import load_dataset
from brivl_search.errors import CorpusError, UsageError
from tests.support import pictures


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "captions.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_strings_and_lists_in_field_order(tmp_path: Path) -> None:
    path = write(
        tmp_path, '{"en": "a dog", "image": "i/1.jpg", "zh": ["狗", " 一只狗 "], "title": "no", "captions": null}\n'
    )
    (line,) = read_captions(path)
    assert isinstance(line, CaptionLine)
    assert line.image == str(tmp_path / "i" / "1.jpg") and line.line == 1
    assert line.texts == (("zh", "狗"), ("zh", "一只狗"), ("en", "a dog"))
    assert line.captions == ("狗", "一只狗", "a dog")
    (line,) = read_captions(path, ["title"])
    assert line.texts == (("title", "no"),)
    (line,) = read_captions(path, ["elsewhere"])
    assert line.texts == ()


def test_bom_crlf_blank_lines_and_no_final_newline(tmp_path: Path) -> None:
    body = '\ufeff{"image": "1.jpg", "zh": "一"}\r\n\r\n  \r\n{"image": "2.jpg", "zh": "二"}'
    lines = list(read_captions(write(tmp_path, body)))
    assert [(line.line, line.captions) for line in lines] == [(1, ("一",)), (4, ("二",))]


def test_image_paths_are_normalised(tmp_path: Path) -> None:
    names = ["./a//b/../1.jpg", "/x/y.jpg", "../z.jpg"]
    body = "".join(json.dumps({"image": name, "zh": "一"}) + "\n" for name in names)
    images = [line.image for line in read_captions(write(tmp_path, body))]
    assert images == [str(tmp_path / "a" / "1.jpg"), "/x/y.jpg", str(tmp_path.parent / "z.jpg")]


def test_image_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"image": "caf\udce9.jpg", "zh": "一"}))
    (line,) = read_captions(path)
    assert os.fsencode(line.image).endswith(b"/caf\xe9.jpg")


BAD = [
    (b"{not json", "not JSON"),
    (b"[" * 200_000, "not JSON"),
    (b'["image"]', "not an object"),
    (b'{"zh": "x"}', "no `image`"),
    (b'{"image": "", "zh": "x"}', "no `image`"),
    (b'{"image": 5, "zh": "x"}', "`image` is not a string"),
    (b'{"image": "a\\u0000.jpg", "zh": "x"}', "`image` is not a file name"),
    (b'{"image": "a.jpg", "zh": 5}', "`zh` is not a string or a list of strings"),
    (b'{"image": "a.jpg", "en": ["x", 5]}', "`en` is not a string or a list of strings"),
    (b'{"image": "a.jpg", "en": {"a": "b"}}', "`en` is not a string or a list of strings"),
    (b'{"image": "a.jpg", "zh": ["x", "  "]}', "empty caption"),
    (b'{"image": "a.jpg", "zh": ""}', "empty caption"),
    (b'{"image": "a.jpg", "other": "x"}', "no caption"),
    (b'{"image": "a.jpg", "zh": "\xff\xfe"}', "invalid UTF-8"),
    (b'{"image": "a.jpg", "zh": "\\ud800"}', "lone surrogates"),
    (b'{"image": "\\ud800.jpg", "zh": "x"}', "lone surrogates"),
]


def test_every_bad_line_is_named_and_none_stops_the_rest(tmp_path: Path) -> None:
    good = b'{"image": "good.jpg", "zh": "x"}'
    path = write(tmp_path, b"\n".join(part for bad, _ in BAD for part in (bad, good)))
    lines = list(read_captions(path))
    bad_lines = [line for line in lines if isinstance(line, BadLine)]
    assert [line.reason for line in bad_lines] == [reason for _, reason in BAD]
    assert [line.line for line in bad_lines] == list(range(1, 2 * len(BAD), 2))
    assert len(lines) == 2 * len(BAD)
    for line in bad_lines:
        assert str(line).startswith(f"{path}:{line.line}: {line.reason}")
        str(line).encode()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot read"):
        list(read_captions(tmp_path / "nowhere.jsonl"))
    os.mkfifo(tmp_path / "captions.jsonl")
    with pytest.raises(CorpusError, match="not a regular file"):
        list(read_captions(tmp_path / "captions.jsonl"))


def test_load_dataset(tmp_path: Path) -> None:
    paths = pictures.write_corpus(tmp_path, 4)
    data = load_dataset(tmp_path)
    assert data.images == tuple(map(str, paths)) and data.fields == ("zh", "en")
    texts, owners = data.pairs()
    assert len(texts) == 16 and owners == [i for i in range(4) for _ in range(4)]
    zh = load_dataset(tmp_path, "zh")
    assert zh.captions[0] == tuple(pictures.captions("red", "circle")["zh"]) and zh.fields == ("zh",)
    assert load_dataset(tmp_path / "captions.jsonl", ["en", "zh"]).captions[0][0].startswith("a red")


def test_load_dataset_merges_lines_of_one_image(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    records = [
        {"image": "a.jpg", "zh": ["一", "一"]},
        {"image": "b.jpg", "en": "b"},
        {"image": "./a.jpg", "zh": ["一", "二"]},
    ]
    pictures.write_lines(tmp_path / "captions.jsonl", records)
    data = load_dataset(tmp_path, "zh")
    assert data.images == (str(tmp_path / "a.jpg"),) and data.captions == (("一", "一", "二"),)
    assert data.without_captions == 1


def test_load_dataset_is_strict(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    path = write(tmp_path, '{"image": "a.jpg", "zh": "一"}\n\n{"image": "gone.jpg", "zh": "二"}\n')
    with pytest.raises(CorpusError, match=rf"{path}:3: image .*gone.jpg does not exist"):
        load_dataset(tmp_path)
    write(tmp_path, '{"image": "a.jpg", "zh": "一"}\n{"image": "a.jpg", "zh": []}\n{"image": "a.jpg"\n')
    with pytest.raises(CorpusError, match=r"captions.jsonl:2: no caption"):
        load_dataset(tmp_path)
    with pytest.raises(CorpusError, match=r"captions.jsonl:3: not JSON"):
        load_dataset(tmp_path, "zh")
    write(tmp_path, '{"image": ".", "zh": "一"}\n')
    with pytest.raises(CorpusError, match=r"captions.jsonl:1: image .* is not a file"):
        load_dataset(tmp_path)


def test_load_dataset_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no captions\.jsonl"):
        load_dataset(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    write(tmp_path, '{"image": "a.jpg", "zh": "一", "zh_ht": ["人"], "n": 3}\n')
    with pytest.raises(UsageError, match=r"has the field 'fr'; fields there: zh, zh_ht$"):
        load_dataset(tmp_path, ["zh", "fr"])
    write(tmp_path, "")
    with pytest.raises(CorpusError, match="holds no captions"):
        load_dataset(tmp_path)
