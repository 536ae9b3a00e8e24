"""Reading an index: a snapshot of one generation that is searched where it lies on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import IndexIncompatibleError, UsageError
from brivl_search.index import catalog, opening, regions, search, tune, warm
from brivl_search.index.catalog import Meta
from brivl_search.index.columns import Columns
from brivl_search.index.facts import facts_of
from brivl_search.index.hubs import lowered_of
from brivl_search.index.moves import Moves
from brivl_search.index.regions import Regions
from brivl_search.index.search import Searched
from brivl_search.index.shard import BLOCK, parse_value, record_value
from brivl_search.index.sources import located
from brivl_search.index.types import (
    MODALITIES,
    UNKNOWN_TIME,
    Item,
    Modality,
    SearchResult,
    Tuning,
)

_MOST_CELLS = 1 << 28  # hits of a call: 4 GB of arrays


class IndexReader:
    """An open index; a context manager. Searches may run in several threads at once.

    It keeps showing the generation it was opened on while a build publishes new ones; see `stale`.
    Shard numbers everywhere are positions in `info.of(modality).shards`.

    Attributes:
        info: facts about what is open.
        moves: keys as they are stored ↔ keys as they are here, which is what every method takes and gives.
        damage: a line for each shard that is missing or not what was sealed; they are left out of everything.
    """

    def __init__(
        self,
        directory: Path,
        meta: Meta,
        parts: dict[Modality, list[Searched]],
        damage: tuple[str, ...] = (),
        where: Moves | None = None,
    ) -> None:
        """Use `open`."""
        self.directory = directory
        self.damage = damage
        self.moves = where or meta.where
        self._stamp: tuple[int, ...] = ()
        self._meta = meta
        self._parts = parts
        self.info = facts_of(directory, meta, parts, self.moves)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the published generation: maps the shards, copies nothing, imports neither faiss nor torch.

        Raises:
            IndexMissingError: there is no index, or its first build has not finished.
            IndexIncompatibleError: it is of another format, its catalog is damaged, or all of its shards are.
        """
        directory = Path(directory)
        seen = ""
        while True:
            stamp = opening.stamp(directory)
            with catalog.reading(directory) as (txn, meta):
                where = located(directory, meta.sources, meta.where, partial(catalog.sample_below, txn))
                removed = {
                    shard.name: catalog.get_removed(txn, shard.name)
                    for part in meta.parts.values()
                    for shard in part.shards
                }
                lowered = {m: lowered_of(txn, directory, m, part) for m, part in meta.parts.items()}
            parts: dict[Modality, list[Searched]] = {}
            damage: list[str] = []
            for modality, part in meta.parts.items():
                parts[modality] = []
                for shard in part.shards:
                    try:
                        one = opening.open_shard(directory, shard, removed[shard.name], meta)
                        parts[modality].append(replace(one, lowered=lowered[modality](one.shard)))
                    except FileNotFoundError:
                        damage.append(f"{directory / 'shards' / shard.name} is missing: {shard.rows:,} rows are lost")
                    except IndexIncompatibleError as error:
                        damage.append(str(error))
            if damage and meta.state != seen:  # perhaps a build that published, or another index, since the catalog
                seen = meta.state  # was read
                continue
            if damage and not any(parts.values()):
                more = f" (and {len(damage) - 1} shards more)" if len(damage) > 1 else ""
                raise IndexIncompatibleError(
                    f"no shard of the index is left: {damage[0]}{more}; `repair` drops what is lost, the next build "
                    "embeds it again",
                    code="index_damaged",
                    details={"index": str(directory)},
                )
            reader = cls(directory, meta, parts, tuple(damage), where)
            reader._stamp = stamp
            return reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the shards; each is unmapped when the last search or array using it is done."""
        self._parts = {modality: [] for modality in MODALITIES}

    def warm(self) -> threading.Thread | None:
        """Bring all that searches touch into memory, in the background; None if it would not fit. See `index.warm`."""
        bulk = [part.shard.bulk() for parts in self._parts.values() for part in parts]
        return warm.start([array for kind in zip_longest(*bulk) for array in kind if array is not None])

    def without(self, modality: Modality, shard: int, why: str) -> Self:
        """The same generation less a shard that turned out to be damaged; shard numbers behind it move up.

        This reader stays as it is for the threads that are in the middle of a search.
        """
        parts = {**self._parts, modality: [one for at, one in enumerate(self._parts[modality]) if at != shard]}
        rest = type(self)(self.directory, self._meta, parts, (*self.damage, why), self.moves)
        rest._stamp = self._stamp
        return rest

    def stale(self) -> bool:
        """Has a build published a newer generation, or is another index there now?

        Costs one `stat` while the catalog's file is untouched.
        """
        stamp = opening.stamp(self.directory)
        if stamp and stamp == self._stamp:
            return False
        with catalog.reading(self.directory) as (_, meta):
            if meta.state != self._meta.state:
                return True
        self._stamp = stamp
        return False

    def cut_short(self, modality: Modality) -> tuple[int, str] | None:
        """A shard whose file was cut short under this reader, and what to say of it. Costs a system call a shard."""
        for number, part in enumerate(self._parts[modality]):
            try:
                part.shard.check()
            except IndexIncompatibleError as error:
                return number, str(error)
        return None

    def count(self, modality: Modality) -> int:
        """Live rows."""
        return self.info.of(modality).rows

    def search(
        self,
        modality: Modality,
        queries: NDArray[Any],
        k: int,
        *,
        exact: bool = False,
        nprobe: int | None = None,
        rerank: int | None = None,
        allow: Sequence[NDArray[np.bool_]] | None = None,
        strength: NDArray[np.float32] | None = None,
    ) -> SearchResult:
        """The k best live rows for each query, by dot product over the float16 rows.

        Where the shards hold an IVF-PQ it proposes candidates and the exact score decides among them; hits are never
        fewer than k while k live (and allowed) rows exist.

        Args:
            modality: what is searched.
            queries: floating (n, dim).
            k: hits for each query, at least 1.
            exact: scan every row.
            nprobe: inverted lists to visit, None for the tuned number.
            rerank: candidates per shard to score exactly, None for the tuned number.
            allow: one bool (rows,) array per shard; rows that may be returned.
            strength: how strongly scores are corrected for hubs, where the index has such a correction: float32 (n,),
                1 for a text, 0 for a picture. None: not at all.

        Raises:
            UsageError: k < 1, or queries of another shape or not finite.
            DependencyError: an IVF-PQ is to be searched and faiss is not installed.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if queries.ndim != 2 or queries.shape[1] != self.info.encoder.dim:
            raise UsageError(f"queries are {queries.shape}, not (n, {self.info.encoder.dim})")
        if not np.isfinite(queries).all():
            raise UsageError("queries are not finite")
        if k * max(1, len(queries)) > _MOST_CELLS:
            raise UsageError(f"k is {k:,} for {len(queries):,} queries: ask for fewer hits, or fewer queries at once")
        for name, value in (("nprobe", nprobe), ("rerank", rerank)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        parts = self._parts[modality]
        if allow is not None:
            if len(allow) != len(parts):
                raise UsageError(f"allow has {len(allow)} arrays for {len(parts)} shards")
            parts = [part.only(mask) for part, mask in zip(parts, allow, strict=True)]
        info = self.info.of(modality)
        tuning = info.tuning
        if tuning is None and info.nlist:
            tuning = tune.default(info.nlist)
        if tuning is not None:
            tuning = replace(tuning, nprobe=nprobe or tuning.nprobe, rerank=rerank or tuning.rerank)
        if info.correction is None or (strength is not None and not strength.any()):
            strength = None
        if strength is not None and strength.shape != (len(queries),):
            raise UsageError(f"strength is {strength.shape}, not ({len(queries)},)")
        return search.search(parts, queries, k, tuning, force_exact=exact, strength=strength)

    def tune(self, modality: Modality, queries: NDArray[np.float32], kind: str, target: float) -> Tuning | None:
        """The fastest setting that reaches a recall@10 of exact search, measured; None where search is exact anyway.

        Args:
            modality: what is searched.
            queries: float32 (n, dim), n >= 1.
            kind: what the queries are; "row": rows of this modality, which are not corrected for hubs.
            target: e.g. 0.99; if nothing reaches it, the setting of best recall is returned.
        """
        if not self.info.of(modality).nlist or not self.count(modality):
            return None
        parts, queries = self._parts[modality], np.ascontiguousarray(queries, np.float32)
        strength = None if kind == "row" else tune.full_strength(parts, queries)
        return tune.tune(parts, queries, kind, target, timed=True, strength=strength)

    def record(self, modality: Modality, shard: int, row: int) -> dict[str, Any]:
        """The JSON object stored with a row. Raises IndexError if there is no such row."""
        record: dict[str, Any] = self.entry(modality, shard, row)["record"]
        return record

    def entry(self, modality: Modality, shard: int, row: int) -> dict[str, Any]:
        """A row's `key`, `content` and `record`. Raises IndexError if there is no such row."""
        entry: dict[str, Any] = self._parts[modality][shard].shard.entry(row)
        return self._here(entry) if self.moves else entry

    def _here(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "key": self.moves.here(entry["key"]), "record": self.moves.record(entry["record"])}

    def values(self, modality: Modality, shards: Container[int] | None = None) -> Iterator[tuple[int, int, bytes]]:
        """(shard, row, JSON of key, content and record) of every live row, or of those of some shards, unparsed."""
        for number, part in enumerate(self._parts[modality]):
            if shards is not None and number not in shards:
                continue
            for row, value in part.shard.values():
                if part.live is None or part.live[row]:
                    if self.moves:
                        body = self._here(parse_value(value))
                        value = record_value(body["key"], body["content"], body["record"])
                    yield number, row, value

    def records(
        self, modality: Modality, shards: Container[int] | None = None
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(shard, row, record) of every live row, or of those of some shards."""
        for number, row, value in self.values(modality, shards):
            yield number, row, parse_value(value)["record"]

    def mtimes(self, modality: Modality) -> list[NDArray[np.int64]]:
        """When the files changed last: ns since the epoch, int64 (rows,) for each shard.

        `types.UNKNOWN_TIME` where that is not known, as of vectors that were imported without their files.
        """
        parts = self._parts[modality]
        times = [np.full(part.shard.info.rows, UNKNOWN_TIME, np.int64) for part in parts]
        with catalog.reading(self.directory) as (txn, meta):
            if meta.identity != self._meta.identity:
                return times
            found = [catalog.get_times(txn, part.shard.info.name, part.shard.info.rows) for part in parts]
            times = [before if known is None else known for before, known in zip(times, found, strict=True)]
            rest = {part.shard.info.seq: at for at, part in enumerate(parts) if found[at] is None}
            for key, value in catalog.scan_items(txn, modality) if rest else ():
                entry = catalog.Entry.unpack(key, value)
                if entry.seq in rest:  # a newer generation may have moved the item elsewhere
                    times[rest[entry.seq]][entry.row] = catalog.file_time(entry.size, entry.mtime_ns)
        return times

    def columns(self, modality: Modality) -> list[Columns]:
        """What filters compare, of each shard; paths as they are stored, and rows that do not count among them."""
        return [part.shard.columns for part in self._parts[modality]]

    def mend_columns(self, modality: Modality, shard: int) -> Columns:
        """Those of a shard whose sealed ones are damaged."""
        return self._parts[modality][shard].shard.mend_columns()

    def live(self, modality: Modality) -> list[NDArray[np.bool_]]:
        """bool (rows,) for each shard: rows that count."""
        return [
            np.ones(part.shard.info.rows, dtype=bool) if part.live is None else part.live
            for part in self._parts[modality]
        ]

    def vectors(self, modality: Modality) -> Iterator[tuple[NDArray[np.float16], int, NDArray[np.int64]]]:
        """Live rows in blocks: float16 (n, dim), shard, int64 row numbers (n,)."""
        for number, part in enumerate(self._parts[modality]):
            for at in range(0, part.shard.info.rows, BLOCK):
                rows = np.arange(at, min(at + BLOCK, part.shard.info.rows))
                if part.live is None:
                    yield part.shard.vectors[at : at + BLOCK], number, rows
                elif len(rows := rows[part.live[rows]]):
                    yield part.shard.vectors[rows], number, rows

    def blocks(self, modality: Modality) -> list[tuple[NDArray[np.float16], NDArray[np.bool_] | None]]:
        """Of each shard all vectors where they lie, float16 (rows, dim), and which count, bool (rows,); None: all."""
        return [(part.shard.vectors, part.live) for part in self._parts[modality]]

    def items(self, modality: Modality) -> Iterator[tuple[list[Item], NDArray[np.float16]]]:
        """Live rows in blocks: the items as they were put, and their vectors, float16 (n, dim)."""
        moves = self.moves
        for part in self._parts[modality]:
            rows = np.arange(part.shard.info.rows) if part.live is None else np.flatnonzero(part.live)
            for at in range(0, len(rows), BLOCK // 8):
                some = rows[at : at + BLOCK // 8]
                bodies = [part.shard.entry(int(row)) for row in some]
                with catalog.reading(self.directory) as (txn, _):
                    entries = [catalog.get_entry(txn, modality, body["key"]) for body in bodies]
                yield (
                    [
                        Item(body["key"], body["content"], entry.size, entry.mtime_ns, body["record"], entry.origin)
                        if entry is not None and entry.content == body["content"]
                        else Item(body["key"], body["content"], record=body["record"])  # a newer generation has none
                        for body, entry in zip(map(self._here, bodies) if moves else bodies, entries, strict=True)
                    ],
                    part.shard.vectors[some],
                )

    def lowered(self, modality: Modality) -> list[NDArray[np.float32]] | None:
        """By how much hubs' scores are lowered, float32 (rows,) for each shard; None where they are not."""
        return [part.lowered for part in self._parts[modality] if part.lowered is not None] or None

    def vector(self, modality: Modality, shard: int, row: int) -> NDArray[np.float16]:
        """float16 (dim,): the stored vector of a row."""
        vector: NDArray[np.float16] = self._parts[modality][shard].shard.vectors[row]
        return vector

    def regions(self, shard: int, row: int, fingerprint: str) -> Regions | None:
        """What the index keeps of an image for the matcher of this fingerprint; None: nothing, or it is damaged."""
        packed = self._parts["image"][shard].shard.regions(row, fingerprint)
        return None if packed is None else regions.unpack(packed)

    def find(self, modality: Modality, key: str) -> tuple[int, int] | None:
        """(shard, row) of the item with this key in this snapshot, None if there is none."""
        stored = self.moves.stored(key)
        with catalog.reading(self.directory) as (txn, meta):
            entry = catalog.get_entry(txn, modality, stored)
        if entry is not None and meta.identity == self._meta.identity:
            for number, part in enumerate(self._parts[modality]):
                alive = part.shard.info.seq == entry.seq and (part.live is None or bool(part.live[entry.row]))
                if alive and part.shard.entry(entry.row)["key"] == stored:
                    return number, entry.row
        if meta.state == self._meta.state:
            return None
        return self._find_by_scan(modality, key)  # the catalog speaks of a newer generation, or index

    def _find_by_scan(self, modality: Modality, key: str) -> tuple[int, int] | None:
        for number, row, value in self.values(modality):
            if json.loads(value)["key"] == key:
                return number, row
        return None
