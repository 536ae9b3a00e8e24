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


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL loses nothing of it, and no disk is waited for."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 200 << 20:
        yield tmp_path_factory.mktemp("kills")
        return
    folder = Path(tempfile.mkdtemp(prefix="brivl-kills-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tallies(quick: Path) -> dict[str, dict[str, Any]]:
    """What killing at each phase and killing at random found; the index of each step is made once for both."""
    command = [sys.executable, "-m", "tests.support.kills", str(quick), "0", str(KILLS), "240"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    for tally in found.values():
        assert tally["total"] <= sum(tally["found"].values())  # those that came too late are looked at as well
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random(tallies: dict[str, dict[str, Any]]) -> None:
    tally = tallies["random"]
    assert tally["total"] >= KILLS and tally["finished"] > 0, tally  # where they land is chance


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_each_phase(tallies: dict[str, dict[str, Any]]) -> None:
    tally = tallies["phases"]
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
