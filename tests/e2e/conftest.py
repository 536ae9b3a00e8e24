"""A working folder with an index, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pictures import write_corpus
from tests.support.site import Ended, run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A working folder with photos/, and index/ built by the first line of the README."""
    folder = tmp_path_factory.mktemp("site")
    write_corpus(folder / "photos", 30)
    built = run(folder, "build-index", "photos", "--index", "index", "--encoder", str(tiny_checkpoint))
    assert built.code == 0, built
    assert built.out == "" and "Traceback" not in built.err  # results are on stdout: a build has none
    assert "30 images found: 30 embedded" in built.err and "120 captions: 120 embedded" in built.err
    assert "index index: 30 images, 120 captions, generation 1" in built.err
    return folder


@pytest.fixture
def cli(site: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Ended]) -> Callable[..., Ended]:
    """The entry point in this process, in the working folder."""
    monkeypatch.chdir(site)
    monkeypatch.setenv("COLUMNS", "200")

    return run_here
