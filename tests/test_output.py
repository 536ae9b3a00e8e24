"""What is printed can be read back, whatever the names of the files."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import pytest

from brivl_search import build as build_module
from brivl_search import output, reports
from brivl_search.corpus.walk import Skipped
from brivl_search.engine import Hit

LATIN1 = os.fsdecode(b"/p/caf\xe9.jpg")
NAMES = ["/p/plain.jpg", "/p/雪地 里的狗.jpg", '/p/quote",comma\n.jpg', LATIN1, "/p/[bold]x[/bold].jpg"]


def image_hits() -> list[Hit]:
    return [
        Hit(n, 0.9 - n / 10, "image", path, None, {"path": path, "width": 640, "height": 480})
        for n, path in enumerate(NAMES, start=1)
    ]


def text_hits() -> list[Hit]:
    words = ["一只狗，在草地上", 'a "dog", on\ngrass', "[red]markup[/red]"]
    return [
        Hit(n, 0.5, "text", NAMES[3], text, {"text": text, "field": "zh", "image": NAMES[3]})
        for n, text in enumerate(words, start=1)
    ]


def test_jsonl(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits(image_hits(), "jsonl")
    lines = capsys.readouterr().out.split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line) for line in lines]
    assert [row["path"] for row in rows] == NAMES  # even the name that is not UTF-8 survives
    assert rows[0] == {"rank": 1, "score": 0.8, "path": NAMES[0], "width": 640, "height": 480}
    assert "雪地" in lines[1]
    output.print_hits(text_hits(), "jsonl")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == [hit.text for hit in text_hits()]
    assert {row["image"] for row in rows} == {LATIN1} and rows[0]["field"] == "zh"


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits(image_hits(), "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in rows] == [*NAMES[:3], "/p/caf\\xe9.jpg", NAMES[4]]
    assert list(rows[0]) == ["rank", "score", "path", "width", "height"] and rows[0]["score"] == "0.8"
    output.print_hits(text_hits(), "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["text"] for row in rows] == [hit.text for hit in text_hits()]
    output.print_hits([], "csv")
    assert capsys.readouterr().out == "rank,score,path\n"


@pytest.mark.parametrize("nul", [False, True])
def test_paths_are_the_bytes_on_disk(capfdbinary: pytest.CaptureFixture[bytes], nul: bool) -> None:
    output.print_hits(image_hits(), "paths", nul=nul)
    end = b"\0" if nul else b"\n"
    assert capfdbinary.readouterr().out == b"".join(os.fsencode(name) + end for name in NAMES)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_hits(image_hits(), "table")
    out = capsys.readouterr().out
    assert "caf\\xe9.jpg" in out and "[bold]x[/bold]" in out and "雪地 里的狗" in out
    assert "0.800" in out and "caption" not in out
    output.print_hits(text_hits(), "table")
    out = capsys.readouterr().out
    assert "[red]markup[/red]" in out and "caption" in out and "一只狗，在草地上" in out


@pytest.mark.parametrize("form", ["table", "jsonl", "csv", "paths"])
def test_no_hits(capsys: pytest.CaptureFixture[str], form: str) -> None:
    output.print_hits([], form)
    assert capsys.readouterr().err == ""


def test_jsonl_on_a_stdout_that_is_not_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.print_hits(image_hits(), "jsonl")
    assert [json.loads(line)["path"] for line in raw.getvalue().splitlines()] == NAMES


def test_default_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.default_format() == "jsonl"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert output.default_format() == "table"


def test_build_summary(capsys: pytest.CaptureFixture[str]) -> None:
    report = build_module.BuildReport(found=30, embedded=4, reused=2, unchanged=11, vanished=1)
    report.skipped = [Skipped(f"/p/{n}.jpg", "truncated", "cut") for n in range(8)] + [Skipped(LATIN1, "empty file")]
    report.bad_captions = [f"/p/captions.jsonl:{n}: not JSON" for n in range(7)]
    report.captions, report.captions_embedded = 12, 3
    reports.print_build(report, "indexes/default", verbose=False)
    got = capsys.readouterr()
    assert got.out == ""
    assert "warning: 8 skipped: truncated" in got.err and "warning: 1 skipped: empty file" in got.err
    assert "/p/4.jpg" in got.err and "/p/5.jpg" not in got.err and "and 3 more" in got.err and "caf\\xe9" in got.err
    assert "7 caption lines not used" in got.err and "captions.jsonl:4: not JSON" in got.err
    assert "30 images found: 4 embedded, 2 reused (duplicate, renamed or touched), 11 unchanged" in got.err
    assert "1 vanished and removed, 9 skipped" in got.err and "12 captions: 3 embedded" in got.err
    reports.print_build(report, "indexes/default", verbose=True)
    err = capsys.readouterr().err
    assert all(f"/p/{n}.jpg" in err for n in range(8)) and "captions.jsonl:6" in err and "more" not in err


def test_bar_off_a_terminal_is_a_line_per_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with output.Bar() as bar:
        bar.phase("scanning", None)
        bar.phase("images", 1234)
        bar.advance(1000)
        bar.note("something")
    got = capsys.readouterr()
    assert got.out == "" and got.err.splitlines() == ["scanning ...", "images: 1,234"]
    with output.Bar(quiet=True) as bar:
        bar.phase("images", 3)
        bar.advance(3)
        bar.note("something")
    assert capsys.readouterr().err == ""


def test_bytes() -> None:
    shown = [output.human_bytes(n) for n in (0, 1023, 1024, 1 << 20, 1 << 30, 1 << 40)]
    assert shown == ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 GiB", "1.0 TiB"]


def test_match_is_a_column_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    known = [Hit(1, 0.4, "image", "/p/a.jpg", None, {}, 0.9312), Hit(2, 0.1, "image", "/p/b.jpg", None, {}, 0.004)]
    output.print_hits(known, "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["#", "score", "match", "image"] and lines[1].split() == [
        "1",
        "0.400",
        "93%",
        "/p/a.jpg",
    ]
    output.print_hits(image_hits()[:1], "table")
    assert "match" not in capsys.readouterr().out
    output.print_hits(known, "jsonl")
    assert json.loads(capsys.readouterr().out.splitlines()[0])["match"] == 0.9312
