"""Lines of an import that are not what they must be: one line that names them, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.errors import BrivlSearchError, CorpusError, IndexMissingError, UsageError
from brivl_search.index import EncoderInfo, IndexReader, Modality
from brivl_search.transfer.export import export
from brivl_search.transfer.imports import import_folder, import_vectors
from brivl_search.transfer.lines import DEEPEST, parse

ENCODER = EncoderInfo("e", "f", 4)


def encode(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("nothing is to be tuned here")


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def take(folder: Path, line: str, modality: Modality = "image") -> list[dict[str, Any]]:
    """The records of an index that was given a good line and this one."""
    good = '{"path": "a.jpg", "text": "a"}\n'
    np.save(folder / "v.npy", np.eye(2, 4, dtype=np.float32))
    (folder / "r.jsonl").write_text(good + line + "\n", encoding="utf-8")
    import_vectors(folder / "v.npy", folder / "r.jsonl", modality, folder / "index", ENCODER, encode)
    with IndexReader.open(folder / "index") as reader:
        return [record for *_, record in reader.records(modality)]


IMAGES = {
    '{"path": "b.jpg", "key": 5}': "`key` is 5",
    '{"path": "b.jpg", "key": true}': "`key` is True",
    '{"path": "b.jpg", "key": ["b"]}': "`key` is",
    '{"path": "b.jpg", "key": {"b": 1}}': "`key` is",
    r'{"path": "b.jpg", "key": "\ud800"}': "half a character",
    r'{"path": "b\udfff.jpg"}': "half a character",
    r'{"path": "b.jpg", "note": ["\ud83d"]}': "half a character",
    r'{"path": "b.jpg", "\ud83d": 1}': "half a character",
    r'{"path": "b\u0000.jpg"}': "NUL",
    '{"path": 7}': "no `path`",
    '{"path": "b.jpg", "content": 5}': "`content` is 5",
    '{"path": "b.jpg", "content": "狗"}': "`content` is",
    '{"path": "b.jpg", "content": "' + "a" * 129 + '"}': "`content` is",
    r'{"path": "b.jpg", "content": "a\u0000"}': "`content` is",
    nested(10_000): "nested",
    '{"path": "b.jpg", "x": ' + nested(10_000) + "}": "nested",
    '{"path": "b.jpg", "x": ' + nested(900) + "}": "nested",
    '{"path": "b.jpg", "x": ' + nested(DEEPEST) + "}": "nested",
    '{"path": "b.jpg", "x": ' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}": "nested",
    "[" * 10_000: "JSON|nested",
    '{"path": "b.jpg", "x": ' + "1" * 5000 + "}": "not JSON",
    "[]": "not a JSON object",
    "7": "not a JSON object",
}
TEXTS = {
    r'{"text": "\ud800"}': "half a character",
    '{"text": ["a"]}': "no `text`",
    '{"text": "b", "image": ["b"]}': "`image` is",
    '{"text": "b", "image": true}': "`image` is True",
    r'{"text": "b", "image": "b\u0000"}': "NUL",
    '{"text": "b", "field": 5}': "`field` is 5",
    r'{"text": "b", "field": "\ud800"}': "half a character",
    r'{"text": "b", "field": "a\u0000b"}': "NUL",
    '{"text": "b", "content": [1]}': "`content` is",
    '{"text": "b", "key": 5}': "`key` is 5",
}


@pytest.mark.parametrize(
    ("modality", "line", "says"),
    [("image", line, says) for line, says in IMAGES.items()] + [("text", line, says) for line, says in TEXTS.items()],
)
def test_bad_lines_are_named(tmp_path: Path, modality: Modality, line: str, says: str) -> None:
    with pytest.raises(CorpusError, match=rf"r\.jsonl:2: .*({says})") as error:
        take(tmp_path, line, modality)
    assert len(str(error.value)) < 500 and str(error.value).isprintable()
    with pytest.raises(IndexMissingError):
        IndexReader.open(tmp_path / "index")


def test_names_that_are_not_utf8_and_moderate_depth_are_taken(tmp_path: Path) -> None:
    record = {"path": "caf\udce9.jpg", "x": json.loads(nested(DEEPEST - 1))}
    (_, taken) = take(tmp_path, json.dumps(record))
    assert taken == {**record, "path": str(tmp_path / "caf\udce9.jpg")}
    assert parse(json.dumps({"a": "狗 🐶"}), "x:1") == {"a": "狗 🐶"}


def rewritten(folder: Path, **change: Any) -> Path:
    """An export of one image, its line changed."""
    np.save(folder / "v.npy", np.ones((1, 4), np.float32))
    (folder / "r.jsonl").write_text('{"path": "a.jpg"}\n')
    import_vectors(folder / "v.npy", folder / "r.jsonl", "image", folder / "index", ENCODER, encode)
    export(folder / "index", folder / "out", "jsonl")
    lines = folder / "out" / "image.jsonl"
    body = {**json.loads(lines.read_text()), **change}
    lines.write_text(json.dumps(body) + "\n")
    return folder / "out"


@pytest.mark.parametrize(
    "change",
    [
        *({"key": value} for value in (None, 5, "", ["a"], "\ud800")),
        *({"content": value} for value in (None, 5, "", "狗")),
        *({"size": value} for value in (-1, 2**64, 1.5, "1", None, float("inf"), True)),
        *({"mtime_ns": value} for value in (2**63, -(2**63) - 1, "x", float("nan"))),
        *({"record": value} for value in (None, [], "x", [["a", 1]], {"a": "\ud800"}, {"a": json.loads(nested(200))})),
        *({"vector": value} for value in (None, 5, [1], [[1, 2, 3, 4]], ["a"] * 4, [1, 2, 3, [4]])),
    ],
    ids=repr,
)
def test_lines_that_no_export_wrote(tmp_path: Path, change: dict[str, Any]) -> None:
    out = rewritten(tmp_path, **change)
    with pytest.raises(CorpusError, match=r"image\.jsonl:1: "):
        import_folder(out, tmp_path / "again", encode)
    with pytest.raises(IndexMissingError):
        IndexReader.open(tmp_path / "again")


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"rows": []}', nested(10_000), '{"dim": 1e999}', "\ud800"])
def test_an_export_json_that_is_none(tmp_path: Path, content: str) -> None:
    out = rewritten(tmp_path)
    (out / "export.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=r"no folder that export wrote"):
        import_folder(out, tmp_path / "again", encode)


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_files_of_an_export_that_are_missing_or_damaged(tmp_path: Path, kind: Any) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    rewritten(tmp_path)
    export(tmp_path / "index", tmp_path / kind, kind)
    for file in sorted((tmp_path / kind).glob("image.*")):
        whole = file.read_bytes()
        for broken in (None, b"", whole[: len(whole) // 2], b"\xff" * 40):
            file.unlink() if broken is None else file.write_bytes(broken)
            with pytest.raises(BrivlSearchError, match=file.name):
                import_folder(tmp_path / kind, tmp_path / "again", encode)
        file.write_bytes(whole)
