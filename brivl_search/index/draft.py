"""The index as it will be: published items and staged changes, read as one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import IndexIncompatibleError
from brivl_search.index import catalog
from brivl_search.index.catalog import Meta
from brivl_search.index.moves import Moves
from brivl_search.index.shard import Shard
from brivl_search.index.staging import Staging
from brivl_search.index.store import Environment
from brivl_search.index.types import ItemState, Modality, ShardInfo


class Draft:
    """What `IndexWriter` knows of its index; a staged change goes before what is published."""

    directory: Path
    _meta: Meta
    _environment: Environment | None
    _staging: Staging | None
    _reading: Any
    _shards: dict[int, Shard]

    def known(self, modality: Modality, key: str) -> ItemState | None:
        """Content, size and mtime of the item with this key, staged or else published; None if there is none."""
        key = self.moves.stored(key)
        staged, item = self._stage.change(modality, key)
        if staged:
            return None if item is None else ItemState(item.content, item.size, item.mtime_ns, item.origin)
        entry = catalog.get_entry(self._txn(), modality, key)
        return None if entry is None else ItemState(entry.content, entry.size, entry.mtime_ns, entry.origin)

    def record(self, modality: Modality, key: str) -> dict[str, Any] | None:
        """The record of the item with this key, a copy; None if there is none, or its shard is damaged."""
        key = self.moves.stored(key)
        staged, item = self._stage.change(modality, key)
        if staged:
            return None if item is None else self.moves.record(dict(item.record))
        entry = catalog.get_entry(self._txn(), modality, key)
        try:
            if entry is None:
                return None
            return self.moves.record(dict(self._shard(modality, entry.seq).entry(entry.row)["record"]))
        except (IndexIncompatibleError, OSError):
            return None

    def keys_under(self, modality: Modality, prefix: str = "") -> Iterator[str]:
        """Keys beginning with `prefix` of all items, published and staged, that are not staged as removed.

        Staging may go on while this iterates. Keys come in no particular order.
        """
        moves = self.moves
        for stored, item in self._stage.changes(modality):
            if item is not None and (key := moves.here(stored)).startswith(prefix):
                yield key
        assert self._environment is not None
        for key in catalog.keys_under(self._environment.scan, moves, modality, prefix):
            if not self._stage.change(modality, moves.stored(key))[0]:
                yield key

    def states_under(self, modality: Modality, prefix: str = "") -> Iterator[tuple[str, ItemState]]:
        """As `keys_under`, with what is known of each item's file."""
        moves = self.moves
        for stored, item in self._stage.changes(modality):
            key = moves.here(stored)
            if item is not None and key.startswith(prefix):
                yield key, ItemState(item.content, item.size, item.mtime_ns, item.origin)
        assert self._environment is not None
        for key, state in catalog.states_under(self._environment.scan, moves, modality, prefix):
            if not self._stage.change(modality, moves.stored(key))[0]:
                yield key, state

    def has_vector(self, modality: Modality, content: str) -> bool:
        """Is the vector of this content at hand, staged or in a live published row?"""
        return self._stage.has_vector(modality, content) or self._is_published(modality, content)

    def vector(self, modality: Modality, content: str) -> NDArray[np.float16] | None:
        """float16 (dim,): the vector of this content, staged or else published; None if there is none."""
        staged = self._stage.vector(modality, content)
        if staged is not None:
            return staged
        place = catalog.find_content(self._txn(), modality, content)
        return None if place is None else self._row(modality, *place)

    def given_number(self, modality: Modality, content: str) -> int | None:
        """How many vectors `stage_vectors(replace=True)` took before this content's; None if it took none for it."""
        return self._stage.given_number(modality, content)

    def is_staged(self, modality: Modality, key: str) -> bool:
        """Has an item with this key been put, or removed, since the last commit?"""
        return self._stage.change(modality, self.moves.stored(key))[0]

    def pending_rows(self, modality: Modality) -> int:
        """Items put and not yet committed."""
        return self._stage.pending[modality]

    def sample(self, modality: Modality, count: int) -> NDArray[np.float32]:
        """Up to `count` vectors of a modality, staged or published, the same ones for the same contents.

        Meant for `commit(tuning_queries=...)`: the texts of a collection are honest queries for its images.

        Returns:
            float32 (n <= count, dim).
        """
        staged = ((content, None) for content in self._stage.contents(modality))
        published = self._published_contents(modality)
        merged = heapq.merge(staged, published, key=lambda pair: pair[0])
        found = [next(group) for _, group in islice(groupby(merged, key=lambda pair: pair[0]), count)]
        vectors = np.empty((len(found), self._meta.encoder.dim), dtype=np.float32)
        for number, (content, place) in enumerate(found):
            vector = self._stage.vector(modality, content) if place is None else self._row(modality, *place)
            assert vector is not None
            vectors[number] = vector
        return vectors

    def _published_contents(self, modality: Modality) -> Iterator[tuple[str, tuple[int, int]]]:
        assert self._environment is not None
        for key, _ in self._environment.scan(catalog.hash_prefix(modality)):
            content, seq, row = catalog.split_hash_key(key)
            yield content, (seq, row)

    def _row(self, modality: Modality, seq: int, row: int) -> NDArray[np.float16]:
        vector: NDArray[np.float16] = self._shard(modality, seq).vectors[row]
        return vector

    def _shard(self, modality: Modality, seq: int) -> Shard:
        number = (seq << 1) + (modality == "text")
        if number not in self._shards:
            info: ShardInfo = next(shard for shard in self._meta.parts[modality].shards if shard.seq == seq)
            self._shards[number] = Shard(self.directory, info, self._meta.encoder.dim)
        return self._shards[number]

    @property
    def moves(self) -> Moves:
        """Keys as they are stored ↔ keys as they are here, which is what every method takes and gives."""
        return self._meta.where

    # -- what is open --------------------------------------------------------------------------------------------

    @property
    def _stage(self) -> Staging:
        if self._staging is None:
            raise ValueError("the writer is closed")
        return self._staging

    def _txn(self) -> Any:
        """A read transaction on the catalog, kept until the next commit (only this writer changes the catalog)."""
        if self._reading is None:
            if self._environment is None:
                raise ValueError("the writer is closed")
            self._reading = self._environment.env.begin()
        return self._reading

    def _is_published(self, modality: Modality, content: str) -> bool:
        return catalog.find_content(self._txn(), modality, content) is not None

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.abort()
            self._reading = None
        self._shards.clear()
