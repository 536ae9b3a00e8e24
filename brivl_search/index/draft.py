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
from brivl_search.index import catalog, keys
from brivl_search.index.catalog import Meta
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
        staged, item = self._stage.change(modality, key)
        if staged:
            return None if item is None else ItemState(item.content, item.size, item.mtime_ns)
        entry = catalog.get_entry(self._txn(), modality, key)
        return None if entry is None else ItemState(entry.content, entry.size, entry.mtime_ns)

    def record(self, modality: Modality, key: str) -> dict[str, Any] | None:
        """The record of the item with this key, a copy; None if there is none, or its shard is damaged."""
        staged, item = self._stage.change(modality, key)
        if staged:
            return None if item is None else dict(item.record)
        entry = catalog.get_entry(self._txn(), modality, key)
        try:
            return None if entry is None else dict(self._shard(modality, entry.seq).entry(entry.row)["record"])
        except (IndexIncompatibleError, OSError):
            return None

    def keys_under(self, modality: Modality, prefix: str = "") -> Iterator[str]:
        """Keys beginning with `prefix` of all items, published and staged, that are not staged as removed.

        Staging may go on while this iterates. Keys come in no particular order.
        """
        for key, item in self._stage.changes(modality):
            if item is not None and key.startswith(prefix):
                yield key
        assert self._environment is not None
        for start in keys.lmdb_ranges(catalog.item_prefix(modality), prefix):
            for lmdb_key, value in self._environment.scan(start):
                key = catalog.Entry.unpack(lmdb_key, value).key
                if key.startswith(prefix) and not self._stage.change(modality, key)[0]:
                    yield key

    def has_vector(self, modality: Modality, content: str) -> bool:
        """Is the vector of this content at hand, staged or in a live published row?"""
        return self._stage.has_vector(modality, content) or self._is_published(modality, content)

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
