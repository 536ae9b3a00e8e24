"""The table of sources in a build: what is new to it, what is there, and how each is read."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from brivl_search.corpus import disks
from brivl_search.corpus.sources import DatasetChoice, Sources
from brivl_search.corpus.walk import CAPTIONS_NAME
from brivl_search.index import IndexWriter
from brivl_search.index.moves import beside
from brivl_search.index.sources import Source, is_away, is_gone
from brivl_search.ingest.coverage import Coverage
from brivl_search.ingest.moved import place_of

_REFRESH_S = 86_400.0  # a source is stamped anew when its stamp is older, so that a build without changes writes none


class Register:
    """Keeps the sources of the index in step with a build.

    Args:
        writer: of the index; moves are known to it already.
        found: what the build found.
        coverage: what it looked at.

    Attributes:
        named: files that were given by name, or were before.
    """

    def __init__(self, writer: IndexWriter, found: Sources, coverage: Coverage) -> None:
        self.writer, self.found, self.coverage = writer, found, coverage
        self.table = {(source.kind, source.path): source for source in writer.sources}
        self.named = set(coverage.named)
        for path in map(os.path.abspath, coverage.paths):
            if not os.path.isdir(path) and path not in self._dataset_paths():
                self.named.add(path)
        self.named &= {image.path for image in found.scan.images}

    def _dataset_paths(self) -> set[str]:
        return {os.path.abspath(path) for path in self.found.readers}

    def remember(self, *, forget: bool) -> None:
        """Puts the sources of this build into the table; a build that forgets takes out those that are doubles."""
        moved = dict(self.coverage.moves)
        for path in self.coverage.paths:
            absolute = os.path.abspath(path)
            if reader := self.found.readers.get(os.fspath(path)):
                how = DatasetChoice(reader.name, reader.choice.split, reader.choice.images, reader.choice.encoding)
                options = {**self.coverage.read_with(absolute), **_without_none(how.to_dict())}
                self._put(Source("dataset", absolute, os.fspath(path), options, tuple(reader.covers)))
            elif os.path.isdir(absolute):
                before = self.table.get(("folder", absolute))
                gone = {one: disk for one, disk in (before.mounts if before else {}).items() if self._is_away(
                    os.path.join(absolute, one)
                )}  # fmt: skip
                mounts = {**gone, **self.found.scan.mounts.get(absolute, {})}
                options = self.coverage.read_with(absolute)
                self._put(Source("folder", absolute, os.fspath(path), options, mounts=mounts))
        for old, new in moved.items():
            self._follow(old, new)
        for path in {os.path.dirname(path) for path in self.named}:
            options = self.coverage.files_options(path)
            if self.coverage.options.max_megapixels is not None:
                options = self.coverage.read_with("")
            self._put(Source("files", path, path, options))
        for file in set(self.found.scan.captions) & set(map(os.path.abspath, self.coverage.paths)):
            if os.path.basename(file) != CAPTIONS_NAME or not file.startswith(self._inside()):
                self._put(Source("captions", file, file, self.coverage.read_with("")))
        for path, _ in self.coverage.doubles if forget else ():
            self.table.pop(("folder", path), None)
        if self.coverage.whole:
            for key, source in list(self.table.items()):
                if source.kind in ("folder", "dataset", "captions") and source.present == (
                    is_gone(source) or source.path in self.coverage.closed
                ):
                    self.table[key] = replace(source, present=not source.present)
        self.writer.set_sources(self.table.values())

    def _is_away(self, folder: str) -> bool:
        return is_away(folder) or folder in self.coverage.closed

    def _inside(self) -> tuple[str, ...]:
        return tuple(os.path.join(root, "") for root in self.found.scan.roots)

    def _put(self, fresh: Source) -> None:
        """A source that is there now."""
        device, inode = place_of(fresh.path)
        way = beside(self.writer.directory, fresh.path)
        disk = disks.disk_of(fresh.path)
        fresh = replace(fresh, device=device, inode=inode, disk=disk, beside=way, seen=round(time.time()))
        for kind in ("folder", "dataset"):
            if fresh.kind in ("folder", "dataset") and kind != fresh.kind:
                self.table.pop((kind, fresh.path), None)
        before = self.table.get((fresh.kind, fresh.path))
        if before is not None and fresh.seen - before.seen < _REFRESH_S and replace(fresh, seen=before.seen) == before:
            return
        self.table[fresh.kind, fresh.path] = fresh

    def _follow(self, old: str, new: str) -> None:
        """A root that moved: its line has its new path already (the writer maps it); what was typed is old."""
        inside = os.path.join(new, "")
        for key, source in list(self.table.items()):
            there = source.path == new or source.path.startswith(inside)
            if there and os.path.abspath(source.given or old) != source.path:
                self._put(replace(self.table.pop(key), given=source.path))
        roots = [root for root in self.found.scan.roots if new.startswith(os.path.join(root, ""))]
        moved = self.table.get(("folder", new))
        if roots and moved is not None and not moved.options:  # a folder above is the root now
            del self.table[("folder", new)]

    def caption_files(self) -> list[Source]:
        """Caption files that were added by name, are there, and are not read as a part of a folder."""
        return [
            source
            for (kind, path), source in self.table.items()
            if kind == "captions" and path not in self.found.scan.captions and os.path.isfile(path)
        ]

    @property
    def captions_away(self) -> list[Source]:
        """Caption files that were added by name and are not there."""
        return [
            source for (kind, path), source in self.table.items() if kind == "captions" and not os.path.isfile(path)
        ]


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
