"""Builds for tests, and what an index then holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport
from brivl_search.ingest.run import build_index
from tests.support.stub import StubEncoder


class Silent:
    """A `Progress` that checks its own use: no phase goes beyond its total."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0

    def phase(self, name: str, total: int | None) -> None:
        self.done, self.total = 0, total or 0

    def advance(self, steps: int) -> None:
        self.done += steps
        assert self.done <= self.total

    def note(self, line: str) -> None:
        assert line


def build(folders: Path | Sequence[Path], index: Path, encoder: StubEncoder, **options: Any) -> BuildReport:
    given = [folders] if isinstance(folders, Path) else folders
    return build_index(given, index, encoder, BuildOptions(**{"workers": 0, **options}), Silent())


def images(index: Path) -> list[str]:
    with IndexReader.open(index) as reader:
        return sorted(record["path"] for _, _, record in reader.records("image"))


def texts(index: Path) -> list[tuple[str, str, str]]:
    """(file name, field, caption) of every live caption."""
    with IndexReader.open(index) as reader:
        records = [record for _, _, record in reader.records("text")]
    return sorted((os.path.basename(r["image"]), r["field"], r["text"]) for r in records)


def checksums(index: Path) -> list[tuple[int, str]]:
    with IndexReader.open(index) as reader:
        return [(s.rows, s.checksum) for part in (reader.info.image, reader.info.text) for s in part.shards]


def contents(index: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in index.rglob("*.lmdb")}


def settle(path: Path, seconds: int = 10) -> None:
    """Give a rewritten file another time than it had, however coarse the clock of the file system is."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))
