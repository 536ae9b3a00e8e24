"""The command line as a process: what came out on which stream, and how a mistake must look."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.support.stub import environment
from tests.support.warm import run_warm

PROGRESS = (
    "tuning ...",
    "compacting ...",
    "rows",
    "scanning ...",
    "images: ",
)  # what a build may have said before it met the error
PICTURE = "photos/images/0000-red-circle.jpg"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(folder: Path, *arguments: str, timeout: float = 120, **more: str) -> Ended:
    done = run_warm("brivl_search", arguments, cwd=folder, env=environment(**more), timeout=timeout)
    return Ended(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8"))


def refused(ended: Ended, code: int, *words: str) -> None:
    """One error line that names the thing, no traceback, nothing on stdout."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err and ended.out == "", ended
    err = "\n".join(line for line in ended.err.splitlines() if not line.startswith(PROGRESS))
    lines = [line for line in err.splitlines() if line.startswith("brivl-search: ")]
    if lines:
        assert err.splitlines() == lines[:1], ended
        said = lines[0]
    else:  # typer's own
        assert "Usage: " in err and "Error: " in err, ended
        said = err
    for word in words:
        assert word in said, ended
