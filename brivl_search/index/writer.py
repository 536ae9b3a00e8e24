"""Building an index: stage items and vectors as they come, then publish them in one commit."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.display import printable
from brivl_search.errors import BrivlSearchError, IndexIncompatibleError, UsageError, system_error
from brivl_search.index import catalog, trust
from brivl_search.index.catalog import Meta
from brivl_search.index.commit import commit_all
from brivl_search.index.keeping import Keeping
from brivl_search.index.lock import WriterLock
from brivl_search.index.shard import Shard, check_size, most_rows
from brivl_search.index.sources import Source, located
from brivl_search.index.staging import Staging
from brivl_search.index.store import Environment, fsync_directory
from brivl_search.index.types import (
    MODALITIES,
    Codec,
    CommitReport,
    Correction,
    EncoderInfo,
    IndexType,
    Item,
    Modality,
    Tuning,
)
from brivl_search.metrics.hub_correction import HubCorrection


class IndexWriter(Keeping):
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
        try:
            (self.directory / "shards").mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(self.directory)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and (known := system_error(error, self.directory)):
                raise known from error
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"`index` {printable(os.fspath(directory))}: {why}: give a folder for the index"
            ) from error
        self._environment: Environment | None = None
        self._staging: Staging | None = None
        self._reading: Any = None
        self._shards: dict[int, Shard] = {}
        self._corrections: dict[Modality, HubCorrection] = {}
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
                other = encoder_name.startswith(f"{base.encoder.name}+precision=")
                advice = "leave out `precision`" if other else f"use `encoder` {base.encoder.name}"
                raise IndexIncompatibleError(
                    f"the index at {directory} is of encoder {base.encoder.name!r} (fingerprint "
                    f"{base.encoder.fingerprint[:12]}), not {encoder_name!r} ({fingerprint[:12]}): {advice}, or build "
                    "into another folder with `index`"
                )
            moves = base.where
            if self._published is not None:
                with self._environment.read() as txn:
                    moves = located(self.directory, base.sources, moves, partial(catalog.sample_below, txn))
            self._meta = replace(
                base,
                moves=moves.pairs,
                identity=base.identity or secrets.token_hex(16),
                encoder=encoder,
                index_type=index_type or base.index_type,
                shard_rows=shard_rows or min(base.shard_rows, most_rows(dim)),
                seed=base.seed if seed is None else seed,
                codec=codec or base.codec,
                memory=base.memory if memory is None else memory,
            )
            state = base.state if self._published else ""
            self._staging = Staging(self.directory, fingerprint, state, job, self._is_published)
            self._sweep()
        except BaseException as error:
            self.close()
            if known := system_error(error, directory):
                raise known from error
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
        """Raises BrivlSearchError in the place of a full disk's error and the like, which LMDB calls by other names."""
        try:
            self.close()
        except Exception as second:
            if error is None:  # else the first error says more
                error = second
        known = None if error is None else system_error(error, self.directory)
        if known is not None:
            raise known from error
        if error is not None and kind is None:
            raise error

    def close(self) -> None:
        """Flush what is staged and release the lock; nothing is published."""
        self._end_reading()
        try:
            if self._staging is not None:
                self._staging.close()
        finally:
            if self._environment is not None:
                self._environment.close()
            self._staging = self._environment = None
            self._lock.release()

    @property
    def generation(self) -> int:
        """The published generation, 0 before the first commit."""
        return self._meta.generation

    @property
    def encoder(self) -> EncoderInfo:
        """Whose vectors it takes."""
        return self._meta.encoder

    def _sweep(self) -> None:
        """Remove shard files the catalog does not name; readers that have them mapped keep their contents.

        Windows does not remove what is mapped: a later writer tries again.
        """
        folder = self.directory / "shards"
        named = {shard.name for part in self._meta.parts.values() for shard in part.shards}
        stale = [path for path in folder.iterdir() if path.name not in named]
        for path in stale:
            with contextlib.suppress(*([PermissionError] if os.name == "nt" else [])):
                path.unlink(missing_ok=True)
        if stale:
            fsync_directory(folder)

    # -- what changes --------------------------------------------------------------------------------------------

    def stage_vectors(
        self, modality: Modality, contents: Sequence[str], vectors: NDArray[Any], *, replace: bool = False
    ) -> None:
        """Keep the vectors of contents until the commit; contents that have one are ignored.

        Args:
            modality: of the contents.
            contents: n content hashes.
            vectors: floating (n, dim), unit length; stored as float16.
            replace: these vectors go before what is staged or published; every row of these contents gets them. They
                go with their job: no other one finds them.

        Raises:
            UsageError: wrong shape, or values that are not finite.
        """
        if vectors.shape != (len(contents), self._meta.encoder.dim):
            raise UsageError(f"vectors are {vectors.shape}, not ({len(contents)}, {self._meta.encoder.dim})")
        if not np.isfinite(vectors).all():
            name = self._meta.encoder.name
            raise UsageError(f"{name} gave {modality} vectors that are not finite numbers: are its weights damaged?")
        for content, vector in zip(contents, vectors.astype("<f2"), strict=True):
            if replace:
                self._stage.put_vector(modality, content, vector, given=True)
            elif not self._stage.has_vector(modality, content):
                self._stage.put_vector(modality, content, vector)

    def put(self, modality: Modality, item: Item) -> None:
        """Declare that the new state holds this item; its vector must be staged or published by the commit.

        Raises:
            UsageError: the content hash is empty, longer than 128 characters or not ASCII.
        """
        if not (item.content.isascii() and 0 < len(item.content) <= 128):
            raise UsageError(f"{item.content!r} is no content hash")
        moves = self.moves
        if moves:
            item = replace(item, key=moves.stored(item.key), record=moves.to_record(dict(item.record)))
        self._stage.put(modality, item.key, item)

    def remove(self, modality: Modality, key: str) -> None:
        """Declare that the new state does not hold this item."""
        self._stage.put(modality, self.moves.stored(key), None)

    def keep_staged(self, modality: Modality, keys: Container[str]) -> None:
        """Take back what a killed try of this job staged for other keys than these."""
        self._stage.take_back(modality, lambda stored: self.moves.here(stored) not in keys)

    def retune(self, modality: Modality, tuning: Tuning) -> None:
        """Search a modality like this from the next commit on."""
        parts = self._meta.parts
        self._meta = replace(self._meta, parts={**parts, modality: replace(parts[modality], tuning=tuning)})

    def correct_hubs(self, modality: Modality, correction: HubCorrection | None) -> None:
        """Correct the scores of a modality for hubs like this from the next commit on; None: no longer.

        Every row gets its number with that commit, and every row that comes later with its own.

        Raises:
            UsageError: the references are vectors of another size.
        """
        if correction is not None and (size := correction.references.shape[1]) != self._meta.encoder.dim:
            raise UsageError(f"hub correction: its references have {size} dimensions, not {self._meta.encoder.dim}")
        parts, self._corrections = self._meta.parts, {**self._corrections}
        self._corrections.pop(modality, None)
        if correction is not None:
            self._corrections[modality] = correction
        facts = None if correction is None else Correction.of(correction)
        self._meta = replace(self._meta, parts={**parts, modality: replace(parts[modality], correction=facts)})

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
                    self._stage.put(modality, entry.key, None)
        return lost

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the index covers, with paths as they are here."""
        return tuple(source.mapped(self.moves.here) for source in self._meta.sources)

    def set_sources(self, sources: Iterable[Source]) -> None:
        """Remember what the index covers; paths as they are here."""
        here = {(source.kind, source.path): source for source in sources}
        stored = tuple(source.mapped(self.moves.stored) for source in here.values())
        self._meta = replace(self._meta, sources=stored)

    def move(self, moves: Sequence[tuple[str, str]]) -> None:
        """What lies at `old`, or below it, is at `new` from now on: keys, records and sources.

        Args:
            moves: (old, new) absolute paths, all of them at once.
        """
        self._meta = replace(self._meta, moves=self.moves.moved_together(moves).pairs)

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
        self._stage.let_go()
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
            corrections=self._corrections,
        )
        self._published, self._corrections = self._meta, {}
        reports = {modality: commits[modality].report() for modality in MODALITIES}
        notes = tuple(note for one in commits.values() for note in one.plan.notes)
        self._stage.committed(self._meta.state, self.regions.fingerprint if self.regions else None)
        commits.clear()
        self._sweep()
        return CommitReport(self._meta.generation, changed, reports["image"], reports["text"], notes)
