"""What the catalog says before a build: sources, and the states of items. No shard is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from brivl_search.errors import IndexMissingError
from brivl_search.index import catalog
from brivl_search.index.moves import Moves
from brivl_search.index.sources import Source, located
from brivl_search.index.store import scan_txn
from brivl_search.index.types import ItemState, Modality

_SAMPLE = 64


@dataclass
class Snapshot:
    """An index as it is published; without one, it has no sources and no items.

    Attributes:
        directory: of the index.
        sources: with paths as they are here.
        moves: keys as they are stored ↔ keys as they are here.
        identity: of the index; "" in one of an older format.
    """

    directory: Path
    sources: tuple[Source, ...] = ()
    moves: Moves = field(default_factory=Moves)
    identity: str = ""

    @classmethod
    def read(cls, directory: Path, *, must: bool = False) -> Self:
        """Of an index that need not be there.

        Raises:
            IndexMissingError: there is none, and there must be one.
            IndexIncompatibleError: it is damaged or of another format.
        """
        try:
            with catalog.reading(directory) as (txn, meta):
                moves = located(directory, meta.sources, meta.where, partial(catalog.sample_below, txn))
                sources = tuple(source.mapped(moves.here) for source in meta.sources)
                return cls(directory, sources, moves, meta.identity)
        except IndexMissingError:
            if must:
                raise
            return cls(directory)

    def states(self, modality: Modality, prefix: str) -> Iterator[tuple[str, ItemState]]:
        """(key, state) of each item whose key begins so."""
        if not self.sources:
            return
        with catalog.reading(self.directory) as (txn, _):
            yield from catalog.states_under(partial(scan_txn, txn), self.moves, modality, prefix)

    def count(self, modality: Modality, root: str) -> int:
        """Items of a root."""
        ends = (os.path.join(root, ""), root + "::")
        return sum(1 for end in ends for _ in self.states(modality, end)) + (modality == "image" and self._is(root))

    def _is(self, key: str) -> bool:
        return any(found == key for found, _ in self.states("image", key))

    def sample(self, root: str) -> list[tuple[str, int]]:
        """(what follows the root in the key, bytes) of some images of a root."""
        if not self.sources:
            return []
        stored = self.moves.stored(root)
        with catalog.reading(self.directory) as (txn, _):
            found = catalog.sample_below(txn, stored, _SAMPLE)
        return [(key[len(stored) :], size) for key, size in found]

    @cached_property
    def folders(self) -> dict[tuple[int, int], str]:
        """(device, inode) → path of the folders that hold indexed images and are there."""
        names = {os.path.dirname(key.partition("::")[0]) for key, _ in self.states("image", "") if os.path.isabs(key)}
        found: dict[tuple[int, int], str] = {}
        for name in sorted(names):
            try:
                status = os.stat(name)
            except (OSError, ValueError):
                continue
            if status.st_ino:
                found.setdefault((status.st_dev, status.st_ino), name)
        return found
