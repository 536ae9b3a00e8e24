"""A filter that lets nothing through is told beside what the index holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from brivl_search.errors import UsageError
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.filters import Filter
from brivl_search.search.queries import compose
from tests.support.pictures import captions, draw, write_lines
from tests.support.searching import build
from tests.support.stub import StubEncoder

DAY = 86_400


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/{harbour,mountains}/COLOUR.png, from 2021-06-01 on, a day each; `split` says train or test."""
    root = tmp_path_factory.mktemp("site") / "photos"
    lines = []
    for number, (folder, colour) in enumerate([("harbour", "red"), ("mountains", "blue"), ("mountains", "green")]):
        (root / folder).mkdir(parents=True, exist_ok=True)
        path = root / folder / f"{colour}.png"
        draw(colour, "ring", size=(100 + number, 50)).save(path)
        os.utime(path, (1_622_548_800 + number * DAY,) * 2)
        split = "train" if number else "test"
        lines.append({"image": f"{folder}/{colour}.png", **captions(colour, "ring"), "split": split})
    write_lines(root / "captions.jsonl", lines)
    return root


@pytest.fixture(scope="module")
def site(photos: Path) -> Path:
    return build(photos, photos.parent / "index", StubEncoder())


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(photos.parent)


def options(**given: Any) -> SearchOptions:
    return SearchOptions(filter=Filter.of(**given))


@pytest.mark.parametrize("target", ["image", "text"])
def test_a_folder_without_images_is_an_error_that_names_those_with_some(site: Path, photos: Path, target: Any) -> None:
    engine = Engine(site)
    with pytest.raises(UsageError) as caught:
        engine.by_text("a red ring", options(under=["photos/harbor"]), target=target)
    what = {"image": "images", "text": "captions"}[target]
    assert str(caught.value) == (
        f"`under` photos/harbor: the index holds no {what} there (did you mean {photos}/harbour? "
        f"there are: {photos}/harbour, {photos}/mountains)"
    )
    assert caught.value.code == "no_such_folder"
    assert caught.value.details == {
        "folder": "photos/harbor",
        "folders": [f"{photos}/harbour", f"{photos}/mountains"],
    }
    with pytest.raises(UsageError, match=r"`under` /nowhere: the index holds no \w+ there \(there are: .*harbour, "):
        engine.by_text("a red ring", options(under=["/nowhere"]), target=target)
    assert engine.by_text("a red ring", options(under=["photos/harbour", "/nowhere"]), target=target)
    assert len(engine.by_text("a red ring", options(under=["photos"]), target="image")) == 3


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (
            {"glob": ["IMG_*"]},
            "filter_glob",
            "`glob` IMG_*: no image is called so (there are: blue.png, green.png, red.png)",
        ),
        ({"after": "2022"}, "filter_after", "`after` 2022-01-01: the newest image is of 2021-06-03 12:00"),
        ({"before": "2021-06-01"}, "filter_before", "`before` 2021-06-01: the oldest image is of 2021-06-01 12:00"),
        ({"min_size": "200x10"}, "filter_min_size", "`min_size` 200x10: the largest image has 102x50 pixels"),
        (
            {"where": ["split=tset"]},
            "filter_where",
            "`where` split=tset: no {} has this value (there are: test, train)",
        ),
        (
            {"where": ["split=test"], "glob": ["blue*"]},
            "filter_together",
            "no {} satisfies all filters at once, each alone is satisfied by some",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["image", "text"])
def test_the_part_that_nothing_satisfies_is_named(
    site: Path, given: dict[str, Any], code: str, message: str, target: Any
) -> None:
    engine, asked, wanted = Engine(site), compose("a red ring"), options(**given)
    assert engine.query(asked, wanted, target=target) == []
    for _ in range(2):  # the second time it is remembered
        reason = engine.why_nothing(asked, wanted, target=target)
        assert reason is not None and (reason.code, reason.message) == (code, message.format(target))


def test_no_reason_where_the_filter_is_none(site: Path) -> None:
    engine, asked = Engine(site), compose("a red ring")
    assert engine.why_nothing(asked, SearchOptions(min_score=2)) is None
    assert engine.why_nothing(asked, options(glob=["red*"])) is None
    with pytest.raises(UsageError, match=r"unknown field 'splt' \(there are: height, split, width\)"):
        engine.why_nothing(asked, options(where=["splt=test"]))


def test_many_folders_are_told_by_those_above_them(tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "photos" / f"20{number % 4:02}" / f"{number:02}" / "raw"
        folder.mkdir(parents=True)
        draw("red", "ring").save(folder / "a.png")
    engine = Engine(build(tmp_path / "photos", tmp_path / "index", StubEncoder()))
    with pytest.raises(UsageError) as caught:
        engine.by_text("a red ring", options(under=["2005"]))
    assert {Path(one).name for one in caught.value.details["folders"]} == {"2000", "2001", "2002", "2003"}
