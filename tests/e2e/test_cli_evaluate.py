"""`eval` as people type it: its tables, its files, and how its mistakes end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.pictures import write_corpus
from tests.support.stub import environment
from tests.support.warm import run_warm


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_corpus(folder / "photos", 20)
    stub(folder, "build-index", "photos", "--index", "index")
    return folder


def stub(folder: Path, *arguments: str) -> tuple[str, str]:
    done = run_warm("tests.support.stub", arguments, cwd=folder, env=environment(), timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done
    return done.stdout.decode(), done.stderr.decode()


def test_a_dataset_with_everything(site: Path) -> None:
    files = ("--per-query", "queries.jsonl", "--report", "report.html", "--predictions", "out")
    out, err = stub(site, "eval", "--dataset", "photos", "--compare", "other", "--ci", "90", *files)
    figures = json.loads(out)
    exact = figures["text_to_image"]["exact"]
    assert {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "MRR", "mAP", "mean_recall"} <= set(exact)
    low, high = exact["intervals"]["R@5"]
    assert low <= exact["R@5"] <= high and figures["confidence"]["level"] == 90
    assert figures["text_to_image"]["through_index"] is None and figures["text_to_image"]["encoder_ms"]["p50"] > 0
    (other,) = figures["compared"]
    difference = other["comparison"]["differences"]["text_to_image"]["R@5"]
    assert difference == {"difference": 0.0, "low": 0.0, "high": 0.0, "excludes_zero": False}  # the same encoder twice
    assert "written: queries.jsonl, out/test_texts.jsonl" in err and "report.html" in err
    assert len((site / "queries.jsonl").read_text().splitlines()) == 2 * (80 + 20)
    assert len((site / "out" / "test_predictions.jsonl").read_text().splitlines()) == 80
    assert (site / "report.html").read_text().startswith("<!doctype html>")


def test_an_index_as_a_table(site: Path) -> None:
    table, err = stub(site, "eval", "--index", "index", "--recall", "share", "--format", "table")
    head = table.splitlines()[1]
    for column in ("exact model", "through the index", "ms a query"):
        assert column in head
    for word in ("R@10", "median rank", "mean rank", "MRR", "mAP", "R@sum", "p50", "p99", "±", "share of positives"):
        assert word in table
    assert "encoder excluded" in table and err == ""
    plain, _ = stub(site, "eval", "--index", "index", "--recall", "diagonal", "--no-ci", "--format", "table")
    assert "±" not in plain and "diagonal" in plain and "20 of 80 captions" in plain


WRONG = [
    (["--compare", "x", "--index", "index"], "--compare needs --dataset"),
    (["--truncate-dim", "8", "--index", "index"], "--truncate-dim needs --dataset"),
    (["--split", "test", "--index", "index"], "give it too"),
    (["--ci", "100", "--index", "index"], "--ci 100"),
    (["--per-query", "nowhere/q.jsonl", "--index", "index"], "there is no folder nowhere"),
    (["--report", "photos", "--index", "index"], "--report photos: it is a folder"),
    (["--predictions", "photos/captions.jsonl", "--index", "index"], "name a folder"),
    (["--recall-at", "0", "--index", "index"], "--recall-at 0"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_mistakes(
    site: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from brivl_search.cli import main

    (site / "photos" / "captions.jsonl").touch()
    monkeypatch.chdir(site)
    monkeypatch.setattr(sys, "argv", ["brivl-search", "eval", *arguments])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **options: None, raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and err.startswith("brivl-search: ") and words in err
    assert len(err.splitlines()) == 1
