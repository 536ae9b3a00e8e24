"""Builds, additions, removals, moves … killed at random instants and at each phase; see tests/support/kills.py.

After every kill the index is sound and holds the old generation or the new one, whole; a step run again ends with the
items, shards and answers of one that was left alone. `tests/soak/kills.py` does the same for as long as you like.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brivl_search.index import verify
from brivl_search.ingest import maintenance
from tests.support.building import build, images
from tests.support.folders import REPO
from tests.support.kills import STEPS
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder

KILLS = 20  # the soak takes as many as you like


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL loses nothing of it, and no disk is waited for."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 200 << 20:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="brivl-kills-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def tally_of(quick: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.kills", str(quick), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    tally: dict[str, Any] = json.loads(done.stdout)
    assert tally["total"] <= sum(tally["found"].values())  # those that came too late are looked at as well
    return tally


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random(quick: Path) -> None:
    tally = tally_of(quick, "0", str(KILLS), "240")
    assert tally["total"] >= KILLS and tally["finished"] > 0, tally  # where they land is chance


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_each_phase(quick: Path) -> None:
    tally = tally_of(quick, "0", "phases")
    assert set(tally["kills"]) == set(STEPS), tally
    assert {"images", "captions", "writing the index", "publishing", "published"} <= set(tally["reached"]), tally
    assert tally["finished"] == tally["total"] and min(tally["found"]["old"], tally["found"]["new"]) >= 3, tally


def test_a_killed_removal_is_done_when_it_is_run_again(tmp_path: Path, encoder: StubEncoder) -> None:
    index, paths = tmp_path / "index", write_corpus(tmp_path / "a", 6)
    build(tmp_path / "a", index, encoder)

    def stop(line: str) -> None:
        if line == "publishing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maintenance.remove(index, paths=paths[:2], progress=stop)
    assert len(images(index)) == 6
    report = maintenance.remove(index, paths=paths[:2])
    assert (report.images, report.captions) == (2, 8)
    assert images(index) == sorted(map(str, paths[2:])) and verify(index).leftovers == ()
