"""Building an index: stage items and vectors as they come, then publish them in one commit."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np
from numpy.typing import NDArray

from ..errors import BrivlSearchError, IndexIncompatibleError, UsageError, system_error
from . import catalog, trust
from .catalog import Meta
from .commit import commit_all
from .lock import WriterLock
from .shard import Shard, check_size, most_rows
from .staging import Staging
from .store import Environment, fsync_directory
from .types import MODALITIES, Codec, CommitReport, EncoderInfo, IndexType, Item, ItemState, Modality, ShardInfo, Tuning


class IndexWriter:
    """The one writer of an index directory; a context manager, used from one thread.

    Killed at any instant, the next writer of the same encoder continues with everything that was flushed; leaving the
    context without `commit` keeps the staging for that too.

    Args:
        directory: created if needed.
        encoder_name: as the user names it, for messages.
        fingerprint: of the encoder; vectors of another one are refused.
        dim: of the vectors.
        index_type: "auto" (IVF-PQ from 9,984 rows on), "ivfpq" (from 256 on) or "exact"; None keeps what the index
            has, "auto" at first.
        shard_rows: most rows of a shard; None keeps what the index has, 1,000,000 at first.
        seed: of k-means and sampling; None keeps what the index has, 0 at first.
        codec: how IVF-PQ codes rows (see `ShardInfo.codec`), when a quantizer is trained or the index compacted; None
            keeps what the index has, "fastscan" at first.
        memory: most bytes for FAISS's part of the index (codes and lists), 0 for no limit; None keeps what the index
            has. It takes effect when a quantizer is trained.
        job: what is being done; a killed job goes on where it was, and another one does not publish its changes.
            "" begins anew each time.

    Raises:
        UsageError: shard_rows is too large for one LMDB value, or not positive.
        BrivlSearchError: another build is writing the directory.
        IndexIncompatibleError: the index is of another encoder or format, or damaged.
    """

    def __init__(
        self,
        directory: Path,
        *,
        encoder_name: str,
        fingerprint: str,
        dim: int,
        index_type: IndexType | None = None,
        shard_rows: int | None = None,
        seed: int | None = None,
        codec: Codec | None = None,
        memory: int | None = None,
        job: str = "build",
    ) -> None:
        self.directory = Path(directory)
        if shard_rows is not None:
            check_size(shard_rows, dim)
        if index_type not in (None, "auto", "ivfpq", "exact"):
            raise UsageError(f"index type {index_type!r}: use auto, ivfpq or exact")
        (self.directory / "shards").mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self.directory)
        self._environment: Environment | None = None
        self._staging: Staging | None = None
        self._reading: Any = None
        self._shards: dict[int, Shard] = {}
        try:
            path = catalog.catalog_path(self.directory)
            try:
                self._environment = Environment(path, writable=True, lock=True)
                with self._environment.read() as txn:
                    self._published = catalog.get_meta(txn, path)
            except lmdb.Error as error:
                if known := system_error(error):
                    raise known from error
                raise IndexIncompatibleError(f"{path} is damaged ({error}): delete {directory}, build again") from error
            except OSError as error:
                raise BrivlSearchError(f"cannot write {path}: {error.strerror or error}") from error
            encoder = EncoderInfo(encoder_name, fingerprint, dim)
            base = self._published or Meta(generation=0, encoder=encoder)
            if base.encoder.fingerprint != fingerprint or base.encoder.dim != dim:
                raise IndexIncompatibleError(
                    f"the index at {directory} is of encoder {base.encoder.name!r} (fingerprint "
                    f"{base.encoder.fingerprint[:12]}), not {encoder_name!r} ({fingerprint[:12]}): use --encoder "
                    f"{base.encoder.name}, or build into another folder with --index"
                )
            self._meta = replace(
                base,
                encoder=encoder,
                index_type=index_type or base.index_type,
                shard_rows=shard_rows or min(base.shard_rows, most_rows(dim)),
                seed=base.seed if seed is None else seed,
                codec=codec or base.codec,
                memory=base.memory if memory is None else memory,
            )
            self._staging = Staging(self.directory, fingerprint, base.generation, job, self._is_published)
            self._sweep()
        except BaseException:
            self.close()
            raise

    @classmethod
    def existing(cls, directory: Path, *, codec: Codec | None = None, memory: int | None = None) -> Self:
        """The writer of an index that is there, for its own encoder; it continues nothing.

        Raises:
            IndexMissingError: there is none.
        """
        with catalog.reading(Path(directory)) as (_, meta):
            encoder = meta.encoder
        return cls(
            directory,
            encoder_name=encoder.name,
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            codec=codec,
            memory=memory,
            job="",
        )

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # else the first error says more
                raise

    def close(self) -> None:
        """Flush what is staged and release the lock; nothing is published."""
        self._end_reading()
        try:
            if self._staging is not None:
                self._staging.flush()
                self._staging.close()
        finally:
            if self._environment is not None:
                self._environment.close()
            self._staging = self._environment = None
            self._lock.release()

    @property
    def _stage(self) -> Staging:
        if self._staging is None:
            raise ValueError("the writer is closed")
        return self._staging

    @property
    def generation(self) -> int:
        """The published generation, 0 before the first commit."""
        return self._meta.generation

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

    def _sweep(self) -> None:
        """Remove shard files the catalog does not name; readers that have them mapped keep their contents."""
        folder = self.directory / "shards"
        named = {shard.name for part in self._meta.parts.values() for shard in part.shards}
        stale = [path for path in folder.iterdir() if path.name not in named]
        for path in stale:
            path.unlink(missing_ok=True)
        if stale:
            fsync_directory(folder)

    # -- what is known -------------------------------------------------------------------------------------------

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
        raw = prefix.encode("utf-8", "surrogateescape")
        head = catalog.item_prefix(modality)
        for start in (head + b"=" + raw[:480], head + b"~"):
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

    # -- what changes --------------------------------------------------------------------------------------------

    def stage_vectors(self, modality: Modality, contents: Sequence[str], vectors: NDArray[Any]) -> None:
        """Keep the vectors of contents until the commit; contents that have one are ignored.

        Args:
            modality: of the contents.
            contents: n content hashes.
            vectors: floating (n, dim), unit length; stored as float16.

        Raises:
            UsageError: wrong shape, or values that are not finite.
        """
        if vectors.shape != (len(contents), self._meta.encoder.dim):
            raise UsageError(f"vectors are {vectors.shape}, not ({len(contents)}, {self._meta.encoder.dim})")
        if not np.isfinite(vectors).all():
            raise UsageError(f"the encoder gave {modality} vectors that are not finite")
        for content, vector in zip(contents, vectors.astype("<f2"), strict=True):
            if not self._stage.has_vector(modality, content):
                self._stage.put_vector(modality, content, vector)

    def put(self, modality: Modality, item: Item) -> None:
        """Declare that the new state holds this item; its vector must be staged or published by the commit.

        Raises:
            UsageError: the content hash is empty, longer than 128 characters or not ASCII.
        """
        if not (item.content.isascii() and 0 < len(item.content) <= 128):
            raise UsageError(f"{item.content!r} is no content hash")
        self._stage.put(modality, item.key, item)

    def remove(self, modality: Modality, key: str) -> None:
        """Declare that the new state does not hold this item."""
        self._stage.put(modality, key, None)

    def retune(self, modality: Modality, tuning: Tuning) -> None:
        """Search a modality like this from the next commit on."""
        parts = self._meta.parts
        self._meta = replace(self._meta, parts={**parts, modality: replace(parts[modality], tuning=tuning)})

    def drop_damaged(self) -> dict[str, int]:
        """Stage the removal of every item whose shard is missing or not the one that was sealed.

        Returns:
            Shard name -> items lost; the next build embeds their files again.
        """
        lost: dict[str, int] = {}
        for modality, part in self._meta.parts.items():
            broken = {info.seq: info.name for info in trust.unsound(self.directory, part.shards)}
            lost |= dict.fromkeys(broken.values(), 0)
            for key, value in catalog.scan_items(self._txn(), modality) if broken else ():
                entry = catalog.Entry.unpack(key, value)
                if entry.seq in broken:
                    lost[broken[entry.seq]] += 1
                    self.remove(modality, entry.key)
        return lost

    def set_roots(self, roots: Sequence[tuple[str, str]], datasets: Mapping[str, dict[str, Any]] | None = None) -> None:
        """Remember the indexed folders as (as given, absolute) pairs, and how some are read (absolute path -> JSON)."""
        pairs = tuple((str(given), str(absolute)) for given, absolute in roots)
        self._meta = replace(self._meta, roots=pairs, datasets=dict(self.datasets if datasets is None else datasets))

    @property
    def roots(self) -> tuple[tuple[str, str], ...]:
        return self._meta.roots

    @property
    def datasets(self) -> Mapping[str, dict[str, Any]]:
        return self._meta.datasets

    def flush(self) -> None:
        """Make everything staged so far durable, in one transaction."""
        self._stage.flush()

    def commit(
        self,
        *,
        tuning_queries: Mapping[Modality, NDArray[np.float32]] | None = None,
        progress: Callable[[str], None] | None = None,
        compact: bool = False,
    ) -> CommitReport:
        """Publish the staged changes as the next generation; with nothing changed, change nothing.

        Args:
            tuning_queries: by the modality searched, float32 (n, dim) vectors of the other modality; IVF-PQ search is
                tuned with them when it is new or has outgrown its last measurement.
            progress: told in one line each what is going on.
            compact: also rewrite shards so that no removed row is left.

        Raises:
            BrivlSearchError: an item was put whose vector is nowhere.
            DependencyError: IVF-PQ is to be built and faiss is not installed.
        """
        queries = dict(tuning_queries or {})
        for modality, given in queries.items():
            if given.ndim != 2 or given.shape[1] != self._meta.encoder.dim:
                raise UsageError(f"tuning queries for {modality} are {given.shape}, not (n, {self._meta.encoder.dim})")
        self._stage.flush()
        self._end_reading()
        assert self._environment is not None
        self._meta, commits, changed = commit_all(
            self.directory,
            self._meta,
            self._environment,
            self._stage,
            published=self._published,
            queries=queries,
            progress=progress or (lambda line: None),
            compact=compact,
        )
        self._published = self._meta
        reports = {modality: commits[modality].report() for modality in MODALITIES}
        notes = tuple(note for one in commits.values() for note in one.plan.notes)
        self._stage.committed(self._meta.generation)
        commits.clear()
        self._sweep()
        return CommitReport(self._meta.generation, changed, reports["image"], reports["text"], notes)
