"""Snapshots of each format of hits: what a person sees, and what a program reads back."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from brivl_search import output
from brivl_search.display import harmless
from brivl_search.search.engine import Hit

LATIN1 = os.fsdecode(b"/p/caf\xe9.jpg")
HOSTILE = "/p/\x1b[31mred\x1b[0m\x9b2J\x07\u202egpj.exe\n.jpg"
ESCAPED = r"/p/\x1b[31mred\x1b[0m\x9b2J\x07\u202egpj.exe\n.jpg"


def image(rank: int, path: str, match: float | None = None, score: float = 0.5) -> Hit:
    return Hit(rank, score, "image", path, None, {"path": path, "width": 640, "height": 480}, match)


def caption(rank: int, text: str, path: str = "/p/a.jpg", match: float | None = None) -> Hit:
    return Hit(rank, 0.5, "text", path, text, {"text": text, "field": "zh", "image": path}, match)


def images() -> list[Hit]:
    best = image(1, "photos/雪地里的狗.jpg", 0.9312, 0.4123)
    best = replace(best, duplicates=(image(3, "photos/copy of 狗.jpg"), image(4, LATIN1)))
    return [best, image(2, LATIN1, 0.41, 0.3), image(3, HOSTILE, 0.004, -0.1)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """stdout is a terminal of so many columns that knows no colours, so that all escapes come from the names."""

    def become(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", "24")
        monkeypatch.setenv("TERM", "dumb")

    return become


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits(images(), "table")
    assert lines(capsys.readouterr().out) == [
        "#   score  match          image",
        "1   0.412   93% ███████▌  photos/雪地里的狗.jpg  +2 alike",
        "2   0.300   41% ███▎      /p/caf\\xe9.jpg",
        f"3  -0.100    0%           {ESCAPED}",
    ]


def test_table_of_captions(capsys: pytest.CaptureFixture[str]) -> None:
    hits = [caption(1, "一只狗，\n在草地上 跑"), caption(2, "a \x1b[2Jdog  [b]x[/b]", LATIN1)]
    output.print_hits(hits, "table")
    assert lines(capsys.readouterr().out) == [
        "#  score  caption                image",
        "1  0.500  一只狗， 在草地上 跑   /p/a.jpg",
        "2  0.500  a \\x1b[2Jdog [b]x[/b]  /p/caf\\xe9.jpg",
    ]


def test_table_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None]) -> None:
    """A path is elided in its middle, on one line; double-width characters are counted as two."""
    terminal(60)
    name = "/photos/" + "很长的名字" * 12 + ".jpg"
    output.print_hits([image(1, name, 0.5), image(2, HOSTILE, 1.0)], "table")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x9b" not in out and "\u202e" not in out
    rows = lines(out)
    from rich.cells import cell_len

    assert max(map(cell_len, rows)) <= 60
    assert rows[1].startswith("1  0.500   50% ████      /photos/很长的名字") and rows[1].rstrip().endswith("名字.jpg")
    assert rows[1].count("…") == 1 and len(rows) == 3
    assert rows[2].startswith("2  0.500  100% ████████  ")


def test_table_where_blocks_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    output.print_hits([image(1, "/p/a.jpg", 0.5)], "table")
    assert raw.getvalue().decode("ascii").splitlines()[1].split() == ["1", "0.500", "50%", "####", "/p/a.jpg"]


def test_jsonl(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits([*images(), caption(4, "狗\x85\x1b")], "jsonl")
    out = capsys.readouterr().out
    assert out.split("\n") == [
        r'{"rank": 1, "score": 0.4123, "match": 0.9312, "fits": true, '
        r'"path": "photos/\u96ea\u5730\u91cc\u7684\u72d7.jpg", '
        r'"width": 640, "height": 480, "alike": 2, "alike_paths": ["photos/copy of \u72d7.jpg", "/p/caf\udce9.jpg"]}',
        r'{"rank": 2, "score": 0.3, "match": 0.41, "fits": true, '
        r'"path": "/p/caf\udce9.jpg", "width": 640, "height": 480}',
        r'{"rank": 3, "score": -0.1, "match": 0.004, "fits": false, "path": '
        r'"/p/\u001b[31mred\u001b[0m\u009b2J\u0007\u202egpj.exe\n.jpg", "width": 640, "height": 480}',
        r'{"rank": 4, "score": 0.5, "text": "狗\u0085\u001b", "field": "zh", "image": "/p/a.jpg"}',
        "",
    ]
    rows = [json.loads(line) for line in out.splitlines()]
    assert [rows[1]["path"], rows[2]["path"], rows[3]["text"]] == [LATIN1, HOSTILE, "狗\x85\x1b"]


def test_jsonl_on_a_stdout_that_is_not_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.print_hits(images(), "jsonl")
    assert [json.loads(line)["path"] for line in raw.getvalue().splitlines()] == [hit.path for hit in images()]


def test_csv(capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None]) -> None:
    output.print_hits(images(), "csv")
    out = capsys.readouterr().out
    head = "rank,score,match,path,width,height,alike,alike_paths"
    alike = r'"[""photos/copy of \u72d7.jpg"", ""/p/caf\udce9.jpg""]"'
    assert out.split("\n")[:3] == [
        head,
        f"1,0.4123,0.9312,photos/雪地里的狗.jpg,640,480,2,{alike}",
        "2,0.3,0.41,/p/caf\\xe9.jpg,640,480,,",
    ]
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    quoted = image(1, '/p/quote",comma\n.jpg')
    output.print_hits([quoted], "csv")
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))["path"] == quoted.path
    assert rows[2]["path"] == HOSTILE and json.loads(rows[0]["alike_paths"])[1] == LATIN1
    terminal(80)  # there the control characters are escapes
    output.print_hits(images(), "csv")
    assert capsys.readouterr().out.splitlines()[3] == f"3,-0.1,0.004,{ESCAPED},640,480,,"


@pytest.mark.parametrize("nul", [False, True])
def test_paths(capfdbinary: pytest.CaptureFixture[bytes], nul: bool) -> None:
    end = b"\0" if nul else b"\n"
    output.print_hits(images(), "paths", nul=nul)
    names = ["photos/雪地里的狗.jpg", LATIN1, HOSTILE]
    assert capfdbinary.readouterr().out == b"".join(os.fsencode(name) + end for name in names)


def test_paths_on_a_terminal(capsys: pytest.CaptureFixture[str], terminal: Callable[[int], None]) -> None:
    terminal(80)
    output.print_hits(images(), "paths")
    assert capsys.readouterr().out == f"photos/雪地里的狗.jpg\n/p/caf\\xe9.jpg\n{ESCAPED}\n"


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\ufeff=1",
        "＝1",
        "＋1",
        "－1",
        "＠1",
        "-",
        "=cmd|' /C calc'!A0",
    ],
)
def test_no_cell_of_csv_is_a_formula(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """In any column that holds a text, of a query or of a batch; numbers stay numbers."""
    record = {"text": text, "field": text, "image": text}
    hit = Hit(1, -0.25, "text", text, text, record, duplicates=(image(2, text),))
    output.print_hits([hit], "csv")
    output.print_hits([hit], "csv", query=text, number=0)
    alone, batch = capsys.readouterr().out.split("\nquery,n,", 1)
    for out in (alone + "\n", "query,n," + batch):
        (row,) = csv.DictReader(io.StringIO(out, newline=""))
        assert {row["text"], row["field"], row["image"]} == {"'" + text} and row["score"] == "-0.25"
        assert json.loads(row["alike_paths"]) == [text] and row.get("query", "'" + text) == "'" + text


@pytest.mark.parametrize("text", ["a=b", "1-2", "狗", "'=1", "", "photos/-1.jpg", ".hidden"])
def test_other_cells_of_csv_stay_as_they_are(capsys: pytest.CaptureFixture[str], text: str) -> None:
    output.print_hits([caption(1, text)], "csv")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row["text"] == text


@pytest.mark.parametrize(
    ("form", "shown"), [("table", "no hits\n"), ("jsonl", ""), ("csv", "rank,score,path\n"), ("paths", "")]
)
def test_no_hits(capsys: pytest.CaptureFixture[str], form: str, shown: str) -> None:
    output.print_hits([], form)
    got = capsys.readouterr()
    assert got.out == shown and got.err == ""


# -- a batch -----------------------------------------------------------------------------------------------------


def print_batch(form: str, nul: bool = False) -> None:
    output.print_hits([image(1, "/p/a.jpg", 0.5)], form, nul=nul, query="红色\n[b]", number=0)
    output.print_hits([], form, nul=nul, query="nothing", number=1)
    output.print_hits([caption(1, "x"), image(2, "/p/b.jpg")], form, nul=nul, query="last", number=2)


def test_batch_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_batch("table")
    assert lines(capsys.readouterr().out) == [
        "红色 [b]",
        "#  score  match          image",
        "1  0.500   50% ████      /p/a.jpg",
        "",
        "nothing",
        "no hits",
        "",
        "last",
        "#  score  caption  image",
        "1  0.500  x        /p/a.jpg",
        "2  0.500           /p/b.jpg",
    ]


def test_batch_jsonl(capsys: pytest.CaptureFixture[str]) -> None:
    print_batch("jsonl")
    assert capsys.readouterr().out.splitlines() == [
        r'{"query": "红色\n[b]", "n": 0, "rank": 1, "score": 0.5, "match": 0.5, "fits": true, "path": "/p/a.jpg", '
        '"width": 640, "height": 480}',
        '{"query": "last", "n": 2, "rank": 1, "score": 0.5, "text": "x", "field": "zh", "image": "/p/a.jpg"}',
        '{"query": "last", "n": 2, "rank": 2, "score": 0.5, "path": "/p/b.jpg", "width": 640, "height": 480}',
    ]


def test_batch_csv_has_one_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_batch("csv")
    out = capsys.readouterr().out
    assert out.startswith(
        "query,n,rank,score,match,text,field,image,path,width,height,alike,alike_paths,generated,captioner\n"
    )
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [(row["query"], row["n"], row["rank"]) for row in rows] == [
        ("红色\n[b]", "0", "1"),
        ("last", "2", "1"),
        ("last", "2", "2"),
    ]
    assert (rows[1]["text"], rows[1]["image"], rows[1]["path"], rows[2]["path"]) == ("x", "/p/a.jpg", "", "/p/b.jpg")


def test_batch_paths(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_batch("paths")
    assert capfdbinary.readouterr().out == b"/p/a.jpg\n\n\n/p/a.jpg\n/p/b.jpg\n"
    print_batch("paths", nul=True)
    assert capfdbinary.readouterr().out == b"/p/a.jpg\0/p/a.jpg\0/p/b.jpg\0"


# -- text from outside -------------------------------------------------------------------------------------------


def test_harmless() -> None:
    assert harmless("plain 雪 é 🐕 ~") == "plain 雪 é 🐕 ~"
    assert harmless("\x00\t\x1b\x7f\x9b\u2028\u200f\u2066") == r"\x00\t\x1b\x7f\x9b\u2028\u200f\u2066"
    assert harmless(LATIN1 + "\ud83d") == "/p/caf\\xe9.jpg\\ud83d"


def test_chatter_is_harmless_too(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"[b]x[/b] {HOSTILE}")
    output.warn(LATIN1)
    assert capsys.readouterr().err == "[b]x[/b] " + ESCAPED.replace(r"\n", "\n") + "\nwarning: /p/caf\\xe9.jpg\n"


@pytest.mark.parametrize(
    ("probability", "bar"),
    [(0.0, ""), (0.01, "▏"), (0.125, "█"), (0.5, "████"), (0.9312, "███████▌"), (1.0, "████████"), (1.2, "████████")],
)
def test_bar(probability: float, bar: str) -> None:
    shown = output.match_bar(probability).plain
    assert shown == f"{probability:4.0%} {bar:8}" and len(shown) == 13
