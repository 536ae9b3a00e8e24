"""duplicates through the command line, on files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_cli_zero_shot import cli, place  # noqa: F401
from tests.support.pictures import draw
from tests.support.site import Ended, refused

ASK = ("duplicates", "-i", "twice")


@pytest.fixture(autouse=True)
def index(cli: Callable[..., Ended], place: Path) -> None:  # noqa: F811
    if (place / "twice").exists():
        return
    folder = place / "again"
    folder.mkdir()
    draw("red", "circle", (256, 256), 1).save(folder / "a.png")
    shutil.copy(folder / "a.png", folder / "b.png")
    draw("red", "circle", (256, 256), 1).resize((128, 128)).save(folder / "c.jpg", quality=80)
    draw("blue", "cross", (256, 256), 2).save(folder / "d.png")
    assert cli("build-index", "again", "-i", "twice", "--workers", "0", "-q").code == 0


def test_formats(cli: Callable[..., Ended]) -> None:  # noqa: F811
    done = cli(*ASK)
    group = json.loads(done.out)
    assert done.code == 0 and "1 groups, 2 photos beside the best, of 4" in done.err
    assert group["best"]["path"] == "again/a.png"
    assert [(one["path"], one["kind"]) for one in group["others"]] == [
        ("again/b.png", "exact"),
        ("again/c.jpg", "same"),
    ]
    assert json.loads(cli(*ASK, "--format", "json").out) == [group]
    rows = list(csv.DictReader(io.StringIO(cli(*ASK, "--format", "csv").out)))
    assert [row["kind"] for row in rows] == ["best", "exact", "same"]
    assert "256x256" in cli(*ASK, "--format", "table").out
    assert cli(*ASK, "--kind", "exact").out.count("again/b.png") == 1


def test_others_for_xargs_are_files_and_nothing_else(cli: Callable[..., Ended], place: Path) -> None:  # noqa: F811
    done = cli(*ASK, "--print-others0", "-q")
    again = place / "again"
    assert (done.out, done.err) == (f"{again / 'b.png'}\0{again / 'c.jpg'}\0", "")
    assert len(list(again.iterdir())) == 4


def test_mistakes(cli: Callable[..., Ended]) -> None:  # noqa: F811
    refused(cli(*ASK, "--alike", "0.9"), 2, "--alike is for --kind similar")
    refused(cli(*ASK, "--print-others0", "--format", "csv"), 2, "--print-others0 has no --format")
    refused(cli("duplicates", "-i", "nowhere"), 3, "nowhere")
