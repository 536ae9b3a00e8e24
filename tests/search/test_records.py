"""Paths of hits are told as the folders were given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brivl_search.display import as_given
from brivl_search.search.engine import Engine, SearchOptions
from tests.support.pictures import write_corpus
from tests.support.searching import build
from tests.support.stub import StubEncoder


def test_paths_as_the_folder_was_given(tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path)
    engine = Engine(build(Path("photos"), tmp_path / "index", encoder))

    def found() -> str:
        return os.path.dirname(engine.by_text("a red circle", SearchOptions(1))[0].path)

    def described() -> str:
        return os.path.dirname(
            engine.by_image(tmp_path / "photos/images/0000-red-circle.jpg", SearchOptions(1))[0].path
        )

    assert found() == described() == "photos/images"
    monkeypatch.chdir("/")  # from here that name leads nowhere
    assert found() == described() == str(tmp_path / "photos/images")


def test_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    roots = [("photos", f"{here}/photos"), ("./b/", f"{here}/b"), (".", here)]
    assert as_given(f"{here}/photos/a.jpg", roots) == "photos/a.jpg"
    assert as_given(f"{here}/b/c/a.jpg", roots) == "./b/c/a.jpg"
    assert as_given(f"{here}/photos2/a.jpg", roots[:2]) == f"{here}/photos2/a.jpg"
    assert as_given("/elsewhere/a.jpg", roots) == "/elsewhere/a.jpg"
    assert as_given(f"{here}/x.jpg", [("/", "/")]) == f"{here}/x.jpg"
