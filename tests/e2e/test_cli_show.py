"""query --html, --open and --preview through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_cli_zero_shot import cli, place  # noqa: F401
from tests.output.test_terminal import program
from tests.support.site import Ended, refused

QUERY = ("query", "红色圆形", "--index", "index", "-k", "3")


@pytest.fixture(autouse=True)
def index(cli: Callable[..., Ended], place: Path) -> None:  # noqa: F811
    if not (place / "index").exists():
        assert cli("build-index", "photos", "--index", "index", "--workers", "0", "--quiet").code == 0


def test_html(cli: Callable[..., Ended], tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out.html"
    done = cli(*QUERY, "--html", str(out), "--format", "paths")
    paths = done.out.splitlines()
    assert (done.code, done.err, len(paths)) == (0, f"wrote {out}: 3 hits\n", 3)
    page = out.read_text("utf-8")
    assert "<h1>红色圆形</h1>" in page and page.count("data:image/jpeg;base64,") == 3
    assert all(f'title="{path}"' in page for path in paths)
    refused(cli(*QUERY, "--html", str(tmp_path / "no" / "out.html")), 2, "--html", "name a file in a folder")


def test_open(cli: Callable[..., Ended], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    program(tmp_path / "bin", "xdg-open")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = cli(*QUERY, "--open", "--format", "paths")
    assert done.code == 0 and done.err == ""
    assert (tmp_path / "bin" / "opened").read_text() == str(place / done.out.splitlines()[0])


def test_preview_in_a_pipe(cli: Callable[..., Ended]) -> None:  # noqa: F811
    refused(cli(*QUERY, "--preview"), 2, "--preview draws in a terminal, and stdout is none")
