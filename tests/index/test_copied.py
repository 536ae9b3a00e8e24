"""A reader that cannot use LMDB's reader table, beside a writer of many small commits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from brivl_search.index import IndexReader, catalog, copied, verify
from brivl_search.index.store import scan_txn
from tests.index.test_concurrent import DIM, WRITER
from tests.support.warm import instead_of_run


@pytest.fixture
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only mount: nothing in the index's folder can be written."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and real(path, mode, **more))


def test_every_reading_is_of_one_generation(tmp_path: Path, no_table: None) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(DIM), "40"])
    seen = set()
    while process.poll() is None:
        try:
            with catalog.reading(tmp_path) as (txn, meta):
                items = sum(1 for _ in catalog.scan_items(txn, "image"))
                hashes = sum(1 for _ in scan_txn(txn, catalog.hash_prefix("image")))
        except Exception as error:
            if "has not finished" in str(error) or "no index at" in str(error):
                continue
            raise
        assert items == hashes == 10 * min(meta.generation, 6 if meta.generation < 6 else 5), meta.generation
        seen.add(meta.generation)
    assert process.wait() == 0 and len(seen) > 3
    assert verify(tmp_path).ok


def test_an_unchanged_catalog_is_copied_once_and_leaves_no_file(
    tmp_path: Path, no_table: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_run([sys.executable, "-c", WRITER, str(tmp_path / "ix"), str(DIM), "2"], check=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    copies: list[int] = []
    real = copied._copy

    def counted(source: int, target: int, size: int) -> None:
        copies.append(size)
        real(source, target, size)

    monkeypatch.setattr(copied, "_copy", counted)
    with IndexReader.open(tmp_path / "ix") as reader:
        assert not reader.stale() and reader.find("image", "000-0") is not None
        assert [len(block) for block, _ in reader.items("image")] == [20]
    assert len(copies) == 1 and not list((tmp_path / "tmp").iterdir())
    instead_of_run([sys.executable, "-c", WRITER, str(tmp_path / "ix"), str(DIM), "3"], check=True)
    assert reader.stale() and len(copies) == 2


def test_a_copy_over_which_a_commit_came_is_made_again(
    tmp_path: Path, no_table: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_run([sys.executable, "-c", WRITER, str(tmp_path), str(DIM), "1"], check=True)
    real, calls = copied._copy, []

    def disturbed(*arguments: Any) -> None:
        real(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            instead_of_run([sys.executable, "-c", WRITER, str(tmp_path), str(DIM), "2"], check=True)

    monkeypatch.setattr(copied, "_copy", disturbed)
    with catalog.reading(tmp_path) as (txn, meta):
        assert meta.generation > 1 and len(calls) == 2
        assert sum(1 for _ in catalog.scan_items(txn, "image")) == 20
