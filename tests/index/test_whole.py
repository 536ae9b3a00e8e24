"""LMDB files that were cut short: named in a line, where LMDB would die of touching what is not there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from brivl_search.errors import IndexIncompatibleError, UsageError
from brivl_search.index import IndexReader, IndexWriter, verify
from brivl_search.index.snapshot import Snapshot
from brivl_search.index.whole import is_cut
from brivl_search.ingest.maintenance import remove
from tests.support.building import build, images
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder, environment

READ = """
import lmdb, sys
env = lmdb.open(sys.argv[1], subdir=False, readonly=True, lock=False)
with env.begin() as txn:
    print(sum(len(key) + len(value) for key, value in txn.cursor()))
"""


def churned(path: Path, seed: int) -> int:
    """A file that was written to and deleted from; counts the times that it was shorter than its meta page says."""
    chance, shorter = random.Random(seed), 0
    path.unlink(missing_ok=True)
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, lock=False, sync=False) as env:
        for _ in range(10):
            with env.begin(write=True) as txn:
                for _ in range(chance.randint(1, 60)):
                    key = str(chance.randint(0, 200)).encode()
                    if chance.random() < 0.4:
                        txn.delete(key)
                    else:
                        txn.put(key, bytes(chance.choice([1, 10, 500, 3000, 9000, 40_000])))
            assert not is_cut(path)
            shorter += (env.info()["last_pgno"] + 1) * env.stat()["psize"] > path.stat().st_size
    return shorter


def test_a_whole_file_is_never_taken_for_cut(tmp_path: Path) -> None:
    assert sum(churned(tmp_path / "a.lmdb", seed) for seed in range(60)) > 0  # such files are there, and are whole


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGBUS there")
def test_what_is_not_called_cut_can_be_read(tmp_path: Path) -> None:
    churned(tmp_path / "a.lmdb", 1)
    whole = (tmp_path / "a.lmdb").read_bytes()
    found = []
    for size in (0, 100, 4096, 8192, 12_000, len(whole) // 2, len(whole) - 40_960, len(whole) - 1):
        (tmp_path / "b.lmdb").write_bytes(whole[:size])
        found.append(is_cut(tmp_path / "b.lmdb"))
        if size and not found[-1]:
            command = [sys.executable, "-c", READ, str(tmp_path / "b.lmdb")]
            assert subprocess.run(command, capture_output=True, env=environment()).returncode in (0, 1), size
    assert found == [False, False, True, True, True, True, True, found[-1]]


@pytest.fixture
def index(tmp_path: Path, encoder: StubEncoder) -> Path:
    write_corpus(tmp_path / "p", 6)
    build(tmp_path / "p", tmp_path / "ix", encoder)
    return tmp_path / "ix"


def test_a_catalog_that_was_cut_is_named_by_all(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    shutil.copytree(index, tmp_path / "copy")
    catalog = tmp_path / "copy" / "catalog.lmdb"
    os.truncate(catalog, catalog.stat().st_size // 2 // 4096 * 4096)
    for what in (
        lambda: IndexReader.open(tmp_path / "copy"),
        lambda: Snapshot.read(tmp_path / "copy"),
        lambda: build(tmp_path / "p", tmp_path / "copy", encoder),
        lambda: remove(tmp_path / "copy", paths=[tmp_path / "p"]),
    ):
        with pytest.raises(IndexIncompatibleError, match=r"catalog\.lmdb .*it was cut short.*build the index again"):
            what()
    assert not verify(tmp_path / "copy").ok
    assert verify(index).ok


def test_a_staging_that_was_cut_costs_time_alone(tmp_path: Path, index: Path, encoder: StubEncoder) -> None:
    (index / "staging.lmdb").write_bytes((index / "catalog.lmdb").read_bytes()[:9000])
    assert any("cut short" in line for line in verify(index).leftovers)
    assert build(tmp_path / "p", index, encoder).unchanged == 6 and len(images(index)) == 6
    assert not (index / "staging.lmdb").exists()


def test_an_index_that_cannot_be_a_folder_is_named(tmp_path: Path, encoder: StubEncoder) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "file/ix", "loop", "n" * 300):
        with pytest.raises(UsageError, match=r"`index` .*: give a folder for the index"):
            IndexWriter(tmp_path / name, encoder_name="stub", fingerprint="x", dim=32)
    with pytest.raises(UsageError, match=r"`index` .*File name too long: give the folder of an index"):
        IndexReader.open(tmp_path / ("n" * 300))
