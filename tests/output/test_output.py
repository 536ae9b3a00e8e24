"""What is said beside the results: summaries and progress."""

from __future__ import annotations

import os
import sys

import pytest

from brivl_search import output
from brivl_search.corpus.walk import Skipped
from brivl_search.ingest.report import BuildReport
from brivl_search.output.build import print_build

LATIN1 = os.fsdecode(b"/p/caf\xe9.jpg")


def test_default_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.default_format() == "jsonl"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert output.default_format() == "table"


def test_build_summary(capsys: pytest.CaptureFixture[str]) -> None:
    report = BuildReport(found=30, embedded=4, reused=2, unchanged=11, vanished=1)
    report.skipped = [Skipped(f"/p/{n}.jpg", "truncated", "cut") for n in range(8)] + [Skipped(LATIN1, "empty file")]
    report.bad_captions = [f"/p/captions.jsonl:{n}: not JSON" for n in range(7)]
    report.captions, report.captions_embedded, report.captions_reused, report.captions_unchanged = 12, 3, 7, 2
    print_build(report, "indexes/default", verbose=False)
    got = capsys.readouterr()
    assert got.out == ""
    assert "warning: 8 skipped: truncated" in got.err and "warning: 1 skipped: empty file" in got.err
    assert "/p/4.jpg" in got.err and "/p/5.jpg" not in got.err and "and 3 more" in got.err and "caf\\xe9" in got.err
    assert "7 caption lines not used" in got.err and "captions.jsonl:4: not JSON" in got.err
    assert (
        "26 images found: 4 embedded, 2 reused (duplicate, renamed or touched), 11 unchanged, 9 skipped; 1 vanished"
        in got.err
    )
    assert "; 1 vanished and removed" in got.err
    assert "12 captions: 3 embedded, 7 the same text as another, 2 unchanged" in got.err
    print_build(report, "indexes/default", verbose=True)
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
