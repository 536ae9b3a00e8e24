"""--preview in terminals of each kind, played by a pseudo-terminal that answers as they do, and --open."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tarfile
import termios
import time
from pathlib import Path

import pytest

from brivl_search.errors import BrivlSearchError, DependencyError, UsageError, install_hint
from brivl_search.output import open_hit, preview_hits
from brivl_search.search.engine import Hit
from tests.support.pictures import draw
from tests.support.stub import environment

REPORT = """
import sys
from brivl_search.search.engine import Hit
from brivl_search.output import open_hit, preview_hits
from brivl_search.errors import BrivlSearchError
hits = [Hit(n, 0.5, "image", p, None, {}, 0.93) for n, p in enumerate(sys.argv[2:], start=1)]
try:
    {"preview": preview_hits, "open": open_hit}[sys.argv[1]](hits)
except BrivlSearchError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
WHAT_ARE_YOU, GRAPHICS_QUERY = b"\x1b[c", b"\x1b_G"
PLACEHOLDER = "\U0010eeee"


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = []
    for colour in ("red", "green", "blue", "black"):
        paths.append(str(tmp_path / f"{colour}.png"))
        draw(colour, "square", (60, 40)).save(paths[-1])
    return [*paths, str(tmp_path / "gone\x1b[2J.png")]


def played(photos: list[str], answers: dict[bytes, bytes], *, stdin: int | None = None, **more: str) -> tuple[str, int]:
    """All that `preview_hits` writes to a terminal of 80 columns, and how it ends. `answers`: query → reply."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 800, 480))
    process = subprocess.Popen(
        [sys.executable, "-c", REPORT, "preview", *photos],
        stdin=theirs if stdin is None else stdin,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "80", **more}),
    )
    os.close(theirs)
    got, open_questions, deadline = b"", dict(answers), time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            got += part
        for question, answer in list(open_questions.items()):
            if question in got:
                del open_questions[question]
                os.write(ours, answer)
    os.close(ours)
    return got.decode("utf-8", "replace"), process.wait(10)


def names_are_shown(out: str) -> None:
    for rank, colour in enumerate(("red", "green", "blue", "black"), start=1):
        assert f"{rank}  93%" in out and f"{colour}.png" in out, out
    assert "[file vanished]" in out and "\x1b[2J" not in out and "gone\\x1b[2J" in out


def test_sixel(photos: list[str]) -> None:
    out, code = played(photos, {WHAT_ARE_YOU: b"\x1b[?62;4;22c"})
    assert code == 0 and out.count("\x1bPq") + out.count("\x1bP0;1") + out.count("\x1bP") >= 4, out
    assert "▀" not in out and PLACEHOLDER not in out
    names_are_shown(out)


def test_kitty(photos: list[str]) -> None:
    out, code = played(photos, {WHAT_ARE_YOU: b"\x1b[?62;22c", GRAPHICS_QUERY: b"\x1b_Gi=31;OK\x1b\\"})
    assert code == 0 and out.count("a=p,") == 4 and PLACEHOLDER in out, out
    assert "▀" not in out and "\x1bP" not in out
    names_are_shown(out)


def test_half_blocks(photos: list[str]) -> None:
    out, code = played(photos, {WHAT_ARE_YOU: b"\x1b[?62;22c"})
    assert code == 0 and "\x1b[38;2;220;30;30;48;2;220;30;30m▀" in out, out  # the red square's middle
    assert PLACEHOLDER not in out and "\x1bP" not in out
    names_are_shown(out)


def test_stdin_is_no_terminal(photos: list[str]) -> None:
    """`echo queries | ... --preview`: nobody can be asked, half blocks work everywhere."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out, code = played(photos, {}, stdin=nothing)
    os.close(nothing)
    assert code == 0 and "▀" in out and WHAT_ARE_YOU.decode() not in out
    names_are_shown(out)


def test_a_terminal_without_colours(photos: list[str]) -> None:
    out, code = played(photos, {}, TERM="dumb")
    assert code == 1 and "UsageError: --preview needs a terminal with colours" in out and "▀" not in out
    out, code = played(photos, {}, NO_COLOR="1")
    assert code == 1 and "UsageError: --preview needs a terminal with colours" in out and "▀" not in out


def test_no_terminal(capfd: pytest.CaptureFixture[str], photos: list[str]) -> None:
    with pytest.raises(UsageError, match="stdout is none: leave it out, or write a page with --html"):
        preview_hits([Hit(1, 0.5, "image", photos[0])])
    assert capfd.readouterr() == ("", "")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, photos: list[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "textual_image", None)
    stdin = sys.__stdin__
    with pytest.raises(DependencyError, match=re.escape(install_hint("preview"))):
        preview_hits([Hit(1, 0.5, "image", photos[0])])
    assert sys.__stdin__ is stdin


# -- --open ------------------------------------------------------------------------------------------------------


def program(folder: Path, name: str, code: int = 0) -> Path:
    """An executable that writes its argument to a file beside itself, talks, and ends with a code."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nprintf %s "$1" > "{folder}/opened"\necho chatter\nexit {code}\n')
    path.chmod(0o755)
    return path


def opened(photos: list[str], path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REPORT, "open", *photos],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(PATH=str(path), **more),
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="xdg-open is of other systems")
def test_open(photos: list[str], tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    program(bin_, "xdg-open")
    done = opened(photos, bin_)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (bin_ / "opened").read_text() == photos[0]
    program(bin_, "xdg-open", code=3)
    done = opened(photos, bin_)
    assert done.returncode == 1 and "ended with 3: no viewer for this kind of file" in done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="xdg-open is of other systems")
def test_open_copies_a_picture_out_of_its_container(photos: list[str], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(photos[0], arcname="deep/0001")
    program(tmp_path / "bin", "xdg-open")
    done = opened([f"{tmp_path}/x.tar::deep/0001"], tmp_path / "bin", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    copy = Path((tmp_path / "bin" / "opened").read_text())
    assert copy.name == "0001.png" and copy.read_bytes() == Path(photos[0]).read_bytes()
    done = opened([f"{tmp_path}/x.tar::2"], tmp_path / "bin")
    assert done.returncode == 1 and "x.tar::2: file vanished" in done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="xdg-open is of other systems")
def test_open_without_xdg_open(photos: list[str], tmp_path: Path) -> None:
    browser = program(tmp_path / "browser", "show")
    (tmp_path / "empty").mkdir()
    done = opened(photos, tmp_path / "empty", BROWSER=f"{browser} %s")
    assert done.returncode == 0 and (tmp_path / "browser" / "opened").read_text() == Path(photos[0]).as_uri()
    done = opened(photos, tmp_path / "empty", BROWSER="")
    assert done.returncode == 1 and "no viewer: install xdg-utils, or name a program in BROWSER" in done.stderr


def test_open_nothing(photos: list[str]) -> None:
    with pytest.raises(UsageError, match="no hit to open"):
        open_hit([])
    with pytest.raises(BrivlSearchError, match=r"gone\\x1b\[2J\.png: the file is gone: brivl-search sync"):
        open_hit([Hit(1, 0.5, "image", photos[-1])])
