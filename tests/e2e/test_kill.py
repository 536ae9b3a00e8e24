"""The real build, killed or interrupted at many moments and run again, ends as if nothing had happened."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brivl_search.index import IndexReader, verify
from brivl_search.output.index import info_dict
from tests.support.pictures import write_corpus
from tests.support.site import run
from tests.support.stub import environment
from tests.support.warm import run_warm

PICTURES, BATCH = 200, 4


class Runs:
    """Builds of one folder in processes of their own (see tests/support/stub.py for the environment)."""

    def __init__(self, folder: Path, index: Path, *options: str) -> None:
        self.folder, self.index, self.options = folder, index, options
        self.log = index.with_name(index.name + ".log")

    def start(self, **more: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "tests.support.stub",
            "build-index",
            str(self.folder),
            "--index",
            str(self.index),
        ]
        command += ["--batch-size", str(BATCH), *self.options]
        settings = environment(STUB_LOG=str(self.log), **more)
        return subprocess.Popen(
            command,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests begun with & inherit none
        )

    def run(self, **more: str) -> tuple[int, str]:
        process = self.start(**more)
        _, err = process.communicate(timeout=120)  # ends only when the decoding processes have, too
        if process.returncode >= 0:  # a decoding process that was just starting may still complain of its dead parent
            assert "Traceback" not in err
        return process.returncode, err

    def embedded(self) -> int:
        """Images embedded so far, in all runs, in calls that came back."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def wait_for(self, images: int) -> None:
        deadline = time.monotonic() + 60
        while self.embedded() < images:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def facts(index: Path) -> dict[str, Any]:
    """`info --format json`, without what rightly differs."""
    with IndexReader.open(index) as reader:
        said = info_dict(reader.info)
    assert said.pop("directory") == str(index)
    assert said.pop("identity")
    for source in said["sources"]:
        del source["seen"]
    for modality in ("image", "text"):
        del said[modality]["bytes"]
        for shard in said[modality]["shards"]:
            del shard["bytes"]
    return said


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_corpus(folder, PICTURES, size=(48, 48))
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = Runs(photos, tmp_path_factory.mktemp("undisturbed") / "index")
    code, err = runs.run()
    assert code == 0, err
    assert runs.embedded() == PICTURES
    return facts(runs.index)


@pytest.mark.parametrize("call", [1, 20, 50])
def test_killed_inside_a_batch(photos: Path, tmp_path: Path, undisturbed: dict[str, Any], call: int) -> None:
    runs = Runs(photos, tmp_path / "index")
    code, _ = runs.run(STUB_KILL_AT=str(call))
    assert code == -signal.SIGKILL
    assert runs.embedded() == (call - 1) * BATCH
    code, err = runs.run()
    assert code == 0, err
    assert f"{PICTURES - (call - 1) * BATCH} embedded" in err
    assert runs.embedded() == PICTURES  # nothing twice: all that had come back was flushed
    assert facts(runs.index) == undisturbed
    report = verify(runs.index)
    assert report.ok and report.leftovers == ()


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment(photos: Path, tmp_path: Path, undisturbed: dict[str, Any], seed: int) -> None:
    """From outside, at moments of chance: first among the images, later in the scan or the commit, as it happens."""
    rng = random.Random(seed)
    runs = Runs(photos, tmp_path / "index")
    killed = 0
    for _ in range(3):
        process = runs.start(STUB_SLEEP="0.005")
        if killed == 0:
            runs.wait_for(rng.choice((4, 60, 120, 180)))
        time.sleep(rng.uniform(0, 0.6 if killed else 0.03))
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert killed
    code, err = runs.run()
    assert code == 0, err
    assert facts(runs.index) == undisturbed
    assert runs.embedded() <= PICTURES + killed * BATCH  # at most one batch was lost by each kill
    assert verify(runs.index).ok


def test_interrupted_with_a_second_build_waiting(photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """Ctrl-C loses nothing; and while one build is writing, another one is refused in one line."""
    runs = Runs(photos, tmp_path / "index")
    process = runs.start(STUB_SLEEP="0.5")
    runs.wait_for(20)
    code, err = runs.run()
    assert code == 1, err
    assert f"brivl-search: another build is writing {runs.index} (pid {process.pid})" in err.splitlines()
    query = [sys.executable, "-m", "brivl_search", "query", "red", "--index", str(runs.index)]
    early = subprocess.run(query, env=environment(), capture_output=True, text=True)
    assert early.returncode == 3 and "Traceback" not in early.stderr  # its first build has not finished
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("brivl-search:")] == [
        "brivl-search: interrupted; what was done is kept, run the same command to go on"
    ]
    before = runs.embedded()
    assert 20 <= before < PICTURES
    code, err = runs.run()
    assert code == 0, err
    assert runs.embedded() == PICTURES
    assert facts(runs.index) == undisturbed


def test_index_stays_usable_while_an_update_is_killed(photos: Path, tmp_path: Path) -> None:
    runs = Runs(photos / "images", tmp_path / "index")
    assert runs.run()[0] == 0
    before = facts(runs.index)
    more = Runs(tmp_path / "more", runs.index)
    write_corpus(more.folder, 40, size=(40, 40))
    assert more.run(STUB_KILL_AT="5")[0] == -signal.SIGKILL
    assert facts(runs.index) == before
    code, err = more.run()
    assert code == 0 and "24 embedded" in err, err
    assert facts(runs.index)["image"]["rows"] == PICTURES + 40


@pytest.mark.slow
def test_killed_with_the_real_encoder(tmp_path: Path, tiny_checkpoint: Path) -> None:
    photos = tmp_path / "photos"
    write_corpus(photos, 60, size=(48, 48))
    real = ("--encoder", str(tiny_checkpoint), "--device", "cpu")
    index = tmp_path / "index"
    command = ["build-index", str(photos), "--index", str(index), *real, "--batch-size", str(BATCH)]
    killing = environment(STUB_REAL="1", STUB_KILL_AT="8")
    assert run_warm("tests.support.stub", command, cwd=tmp_path, env=killing, timeout=120).returncode == -signal.SIGKILL
    done = run(tmp_path, *command)
    assert done.code == 0, done
    match = re.search(r"(\d+) embedded.*?(\d+) unchanged", done.err)
    assert match and tuple(map(int, match.groups())) == (60 - 28, 28), done
    whole = tmp_path / "whole"  # in a process of its own, too: a training run before this test sets torch's kernels
    undisturbed = ["build-index", str(photos), "--index", str(whole), *real, "--batch-size", str(BATCH)]
    assert run(tmp_path, *undisturbed, "--workers", "0").code == 0
    assert facts(index) == facts(whole)
