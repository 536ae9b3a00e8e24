"""A build killed at any instant and run again ends with the index of an undisturbed build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brivl_search.index import IndexReader, verify
from tests.support.warm import instead_of_run

BUILD = """
import os, signal, sys
import numpy as np
from pathlib import Path
from brivl_search.index import IndexWriter, Item
import brivl_search.index.catalog as catalog
import brivl_search.index.shard as shard
from brivl_search.index import commit, ivfpq
ivfpq.faiss_module().omp_set_num_threads(1)

directory, where, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
DIM = 32

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(line):
    if where != "-" and line.startswith(where):
        die()

if where == "in transaction":
    put = commit.ModalityCommit._put
    count = [0]
    def failing(self, txn, entry):
        count[0] += 1
        if count[0] == 150:
            die()
        put(self, txn, entry)
    commit.ModalityCommit._put = failing
if where == "before rename":
    shard.Path.replace = lambda self, target: die()
if where == "clearing":
    from brivl_search.index.staging import Staging
    Staging.clear = lambda self: die()

centers = np.random.default_rng(1).standard_normal((20, DIM))
embedded = 0
for round in range(rounds):
    with IndexWriter(directory, encoder_name="mini", fingerprint="f", dim=DIM, index_type="ivfpq", shard_rows=400) as w:
        wanted = {f"/{n:05d}": (f"{n:05d}" if not (round and n % 50 == 0) else f"new{n}")
                  for n in range(round * 30, 900 + round * 200)}
        for number, (key, content) in enumerate(wanted.items()):
            state = w.known("image", key)
            if state is not None and state.content == content:
                continue
            if not w.has_vector("image", content):
                embedded += 1
                rng = np.random.default_rng(list(content.encode()))
                vector = centers[rng.integers(20)] + 0.3 * rng.standard_normal(DIM)
                w.stage_vectors("image", [content], (vector / np.linalg.norm(vector)).astype(np.float32)[None])
            w.put("image", Item(key, content, number, number, {"path": key}))
            if number % 100 == 99:
                w.flush()
            if where == f"row {number}":
                die()
        for key in w.keys_under("image", "/"):
            if key not in wanted:
                w.remove("image", key)
        rng = np.random.default_rng(5)
        w.commit(progress=progress, tuning_queries={"image": rng.standard_normal((16, DIM)).astype(np.float32)})
print(embedded)
"""

PLACES = [
    "row 0",
    "row 250",
    "row 899",
    "training",
    "writing image-000002",
    "before rename",
    "sealed image-000001",
    "sealed image-000003",
    "tuning",
    "publishing",
    "in transaction",
    "published",
    "clearing",
]


def build(directory: Path, where: str = "-", rounds: int = 1) -> subprocess.CompletedProcess[str]:
    return instead_of_run([sys.executable, "-c", BUILD, str(directory), where, str(rounds)])


def fingerprint(directory: Path) -> tuple[object, ...]:
    """What two equal indexes share: checksums, tuning, and the answers to some queries."""
    assert verify(directory).problems == ()
    with IndexReader.open(directory) as r:
        queries = np.random.default_rng(3).standard_normal((5, 32)).astype(np.float32)
        found = r.search("image", queries, 15)
        image = r.info.image
        shards = [(shard.rows, shard.checksum) for shard in image.shards]
        return r.count("image"), shards, image.tuning, found.rows.tolist(), found.scores.tolist()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[object, ...]]:
    found = {}
    for rounds in (1, 2):
        directory = tmp_path_factory.mktemp("undisturbed")
        done = build(directory, rounds=rounds)
        assert done.returncode == 0, done.stderr
        found[rounds] = fingerprint(directory)
    return found


@pytest.mark.parametrize("where", PLACES)
def test_killed_first_build(tmp_path: Path, where: str, undisturbed: dict[int, tuple[object, ...]]) -> None:
    killed = build(tmp_path, where)
    assert killed.returncode == -9, killed.stderr
    again = build(tmp_path)
    assert again.returncode == 0, again.stderr
    if not where.startswith("row"):
        assert again.stdout.strip() == "0"  # nothing was embedded twice
    elif where == "row 899":
        assert int(again.stdout) <= 100  # at most what had not been flushed
    assert fingerprint(tmp_path) == undisturbed[1]
    report = verify(tmp_path)
    assert report.leftovers == (), report.leftovers


@pytest.mark.parametrize("where", ["row 1000", "before rename", "publishing", "in transaction", "clearing"])
def test_killed_update(tmp_path: Path, where: str, undisturbed: dict[int, tuple[object, ...]]) -> None:
    assert build(tmp_path).returncode == 0
    with IndexReader.open(tmp_path) as before:
        killed = build(tmp_path, where, rounds=2)  # its first round changes nothing
        if where == "clearing":  # dies after its first, empty commit
            assert killed.returncode == -9
        else:
            assert killed.returncode == -9, killed.stderr
            assert fingerprint(tmp_path) == undisturbed[1]  # the published generation is untouched
        assert before.count("image") == 900
    again = build(tmp_path, rounds=2)
    assert again.returncode == 0, again.stderr
    assert fingerprint(tmp_path) == undisturbed[2]


def test_twice_killed(tmp_path: Path, undisturbed: dict[int, tuple[object, ...]]) -> None:
    for where in ("row 400", "sealed image-000002", "publishing"):
        assert build(tmp_path, where).returncode == -9
        report_text = " ".join(verify_leftovers(tmp_path))
        assert "staging.lmdb" in report_text or where == "row 400"
    assert build(tmp_path).returncode == 0
    assert fingerprint(tmp_path) == undisturbed[1]


def verify_leftovers(directory: Path) -> tuple[str, ...]:
    from brivl_search.errors import IndexMissingError

    try:
        return verify(directory).leftovers
    except IndexMissingError as error:  # a first build that has not published: that is what it says
        assert "has not finished" in str(error)
        return ("staging.lmdb",)
