"""One commit: plan what changes, seal new shards, publish them in one catalog transaction.

Nothing in the published index changes before the transaction, and all of it changes in it. What a killed commit leaves
behind is unreferenced files, which the next writer removes, and the staging, from which it starts over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BrivlSearchError
from . import catalog, ivfpq, tune
from .catalog import Entry, Meta, Quantizer
from .plan import (
    COMPACT_RATIO,
    DRIFT,
    DRIFT_SAMPLE,
    MERGE_RATIO,
    MERGE_ROWS,
    RETRAIN_RATIO,
    RETUNE_SHARE,
    Plan,
)
from .search import Searched
from .shard import Row, Shard, record_value, seal
from .staging import Staging
from .store import Environment
from .types import Item, Modality, ModalityReport, ShardInfo, Tuning


class ModalityCommit:
    """The commit of one modality: `plan`, `seal`, `tune`, then `publish` inside the catalog's transaction."""

    def __init__(
        self,
        directory: Path,
        modality: Modality,
        meta: Meta,
        environment: Environment,
        staging: Staging,
        progress: Callable[[str], None],
    ) -> None:
        self.directory, self.modality, self.meta = directory, modality, meta
        self.environment, self.staging, self.progress = environment, staging, progress
        self.before = self.after = meta.parts[modality]
        self.sealed: list[ShardInfo] = []
        self.trained: bytes | None = None
        self._open: dict[int, Shard] = {}
        with environment.read() as txn:
            self.dead = {shard.seq: catalog.get_removed(txn, shard.name) for shard in self.before.shards}
            if self.before.quantizer is not None:
                self.trained = bytes(txn.get(catalog.quantizer_key(modality)))

    # -- what is there -------------------------------------------------------------------------------------------

    def shard(self, seq: int) -> Shard:
        if seq not in self._open:
            info = next(shard for shard in (*self.before.shards, *self.sealed) if shard.seq == seq)
            self._open[seq] = Shard(self.directory, info, self.meta.encoder.dim)
        return self._open[seq]

    def live(self, info: ShardInfo) -> NDArray[np.bool_]:
        """bool (rows,): rows of a shard that count after this commit."""
        live = np.ones(info.rows, dtype=bool)
        live[self.dead.get(info.seq, [])] = False
        live[list(self.plan.removed.get(info.seq, ()))] = False
        return live

    # -- plan ----------------------------------------------------------------------------------------------------

    def make_plan(self, compact: bool = False) -> None:
        """Compare the staged changes with what is published and decide which shards are rewritten."""
        self.plan = plan = Plan()
        for key, item in self.staging.changes(self.modality):
            with self.environment.read() as txn:
                entry = catalog.get_entry(txn, self.modality, key)
            if item is not None and entry is not None and self._same(entry, item):
                plan.kept.add(key)
                if (entry.size, entry.mtime_ns) != (item.size, item.mtime_ns):
                    plan.touched.add(key)
                continue
            if entry is not None:
                plan.removed.setdefault(entry.seq, set()).add(entry.row)
            if item is not None:
                plan.new += 1
            elif entry is not None:
                plan.gone.add(key)
        rest = {s.seq: s.rows - len(self.dead[s.seq]) - len(plan.removed.get(s.seq, ())) for s in self.before.shards}
        plan.drop = [shard for shard in self.before.shards if rest[shard.seq] == 0]
        stay = [shard for shard in self.before.shards if rest[shard.seq]]
        plan.live = sum(rest.values()) + plan.new
        self._choose_kind(plan, compact)
        if plan.train or compact:
            kind = "ivfpq" if plan.ivfpq else "exact"
            tidy = all(shard.kind == kind and rest[shard.seq] == shard.rows for shard in stay) and all(
                shard.rows == self.meta.shard_rows for shard in stay[:-1]
            )
            plan.merge = stay if plan.train or not tidy else []
            return
        if plan.ivfpq:  # exact shards of a time before the quantizer, or of index_type="exact"
            plan.merge = [shard for shard in stay if shard.kind == "exact"]
            stay = [shard for shard in stay if shard.kind == "ivfpq"]
        total = plan.new + sum(rest[shard.seq] for shard in plan.merge)
        while total and stay:
            size = rest[stay[-1].seq]
            if size > max(MERGE_RATIO * total, MERGE_ROWS) or total + size > self.meta.shard_rows:
                break
            plan.merge.append(stay.pop())
            total += size
        plan.merge.sort(key=lambda shard: shard.seq)

    def _same(self, entry: Entry, item: Item) -> bool:
        """Is the published row still right for the item, but for the file's size and mtime?"""
        if entry.content != item.content:
            return False
        published = self.shard(entry.seq).entry(entry.row)["record"]
        return bool(published == json.loads(json.dumps(dict(item.record))))

    def _choose_kind(self, plan: Plan, compact: bool) -> None:
        """Exact or IVF-PQ, and is the quantizer to be trained?"""
        kind, quantizer = self.meta.index_type, self.before.quantizer
        if kind == "exact" or not plan.live:
            return
        if kind == "ivfpq" and quantizer is None and plan.live < ivfpq.FORCED_MINIMUM:
            plan.notes.append(
                f"{self.modality}: IVF-PQ needs at least {ivfpq.FORCED_MINIMUM} rows to be trained and there are "
                f"{plan.live}: search is exact"
            )
            return
        plan.ivfpq = quantizer is not None or kind == "ivfpq" or plan.live >= ivfpq.AUTO_THRESHOLD
        if plan.ivfpq and (quantizer is None or self._poor(plan, quantizer, compact)):
            plan.train = True
            if plan.live < ivfpq.AUTO_THRESHOLD:
                plan.notes.append(
                    f"{self.modality}: IVF-PQ was asked for and trained on {plan.live} rows; below "
                    f"{ivfpq.AUTO_THRESHOLD:,} exact search is both faster and right"
                )

    def _poor(self, plan: Plan, quantizer: Quantizer, compact: bool) -> bool:
        """Has the collection outgrown its quantizer, or (looked at when compacting) drifted away from it?"""
        dim, memory = self.meta.encoder.dim, self.meta.memory
        grown = ivfpq.list_count(plan.live) / quantizer.nlist
        if grown >= (COMPACT_RATIO if compact else RETRAIN_RATIO):
            return True
        if memory and ivfpq.faiss_bytes(plan.live, dim, quantizer.nlist, quantizer.m) > memory:
            return ivfpq.pq_bytes(dim, plan.live, memory, quantizer.codec) < quantizer.m
        if compact and quantizer.codec != ivfpq.usable(self.meta.codec, dim):
            return True
        if not compact or not quantizer.error or self.trained is None:
            return False
        error = ivfpq.coding_error(self.trained, self._sample_published())
        if error <= DRIFT * quantizer.error:
            return False
        plan.notes.append(
            f"{self.modality}: rows lie {error / quantizer.error:.2f} times as far from their codes as those the "
            "quantizer was trained on: it is trained anew"
        )
        return True

    def _sample_published(self) -> NDArray[np.float32]:
        """Up to 4,096 live published rows, spread evenly: float32 (n, dim)."""
        places = [(info, np.flatnonzero(self.live(info))) for info in self.before.shards]
        step = max(1, sum(len(rows) for _, rows in places) // DRIFT_SAMPLE)
        blocks = [self.shard(info.seq).vectors[rows[::step]].astype(np.float32) for info, rows in places if len(rows)]
        return np.concatenate(blocks)

    # -- seal ----------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Every row of the shards to be written: live rows of merged shards, then new ones by key."""
        for info in self.plan.merge:
            live, shard = self.live(info), self.shard(info.seq)
            for row, value in shard.values():
                if live[row]:
                    yield value, shard.vectors[row]
        for key, item in self.staging.changes(self.modality):
            if item is not None and key not in self.plan.kept:
                yield record_value(key, item.content, dict(item.record)), self._vector(item)

    def _vector(self, item: Item) -> NDArray[np.float16]:
        staged = self.staging.vector(self.modality, item.content)
        if staged is not None:
            return staged
        with self.environment.read() as txn:
            place = catalog.find_content(txn, self.modality, item.content)
        if place is None:
            raise BrivlSearchError(f"{self.modality} {item.key!r} was put without a vector for its content")
        vector: NDArray[np.float16] = self.shard(place[0]).vectors[place[1]]
        return vector

    def seal(self) -> None:
        """Train if planned, then write the new shards."""
        plan, meta, part = self.plan, self.meta, self.before
        left = sum(int(self.live(info).sum()) for info in plan.merge) + plan.new
        if plan.train and left:
            part = replace(part, quantizer=self._train(left), tuning=None)
        if not plan.ivfpq:
            self.trained = None
        quantizer = part.quantizer
        stream, seq = self.rows(), part.next_seq
        while left:
            count = min(left, meta.shard_rows)
            name = catalog.shard_name(self.modality, seq)
            self.progress(f"writing {name}: {count:,} rows")
            info = seal(
                self.directory,
                name,
                stream,
                count,
                modality=self.modality,
                seq=seq,
                dim=meta.encoder.dim,
                fingerprint=meta.encoder.fingerprint,
                trained=self.trained,
                nlist=quantizer.nlist if quantizer else 0,
                m=quantizer.m if quantizer else 0,
                codec=quantizer.codec if quantizer else "pq8",
            )
            self.sealed.append(info)
            self.progress(f"sealed {name}")
            left, seq = left - count, seq + 1
        gone = {shard.seq for shard in (*plan.merge, *plan.drop)}
        shards = (*(shard for shard in part.shards if shard.seq not in gone), *self.sealed)
        self.after = replace(part, next_seq=seq, shards=shards, tuning=part.tuning if shards else None)

    def _train(self, rows: int) -> Quantizer:
        """Train on a seeded sample of the rows to be written (all rows of the modality when training)."""
        dim, memory = self.meta.encoder.dim, self.meta.memory
        codec = ivfpq.usable(self.meta.codec, dim)
        nlist, m = ivfpq.list_count(rows), ivfpq.pq_bytes(dim, rows, memory, codec)
        if memory and (needed := ivfpq.faiss_bytes(rows, dim, nlist, m)) > memory:
            self.plan.notes.append(
                f"{self.modality}: {needed:,} bytes is the least that IVF-PQ takes for {rows:,} rows; the budget is "
                f"{memory:,}"
            )
        size = ivfpq.training_rows(rows, nlist, dim, memory)
        chosen = np.zeros(rows, dtype=bool)
        chosen[np.random.default_rng(self.meta.seed).choice(rows, size, replace=False)] = True
        self.progress(f"training the {self.modality} quantizer: {nlist} lists, {m} bytes, {size:,} rows")
        sample = np.empty((size, dim), dtype=np.float32)
        filled = 0
        for wanted, (_, vector) in zip(chosen, self.rows(), strict=True):
            if wanted:
                sample[filled] = vector
                filled += 1
        self.trained = ivfpq.train(sample, nlist, m, self.meta.seed, codec)
        error = ivfpq.coding_error(self.trained, sample[:: max(1, size // DRIFT_SAMPLE)])
        return Quantizer(nlist, m, size, hashlib.sha256(self.trained).hexdigest(), codec, error)

    # -- tune ----------------------------------------------------------------------------------------------------

    def parts(self) -> list[Searched]:
        found = []
        for info in self.after.shards:
            live = self.live(info)
            count = int(live.sum())
            found.append(Searched(self.shard(info.seq), None if count == info.rows else live, count))
        return found

    def tune(self, queries: NDArray[np.float32] | None) -> bool:
        """Choose nprobe and rerank where a shard is of kind ivfpq; says whether anything changed."""
        probed = any(shard.kind == "ivfpq" for shard in self.after.shards)
        before = self.after.tuning
        tuning: Tuning | None = None
        if probed and queries is not None and len(queries):
            if before is not None and before.recall is not None and not self._outgrown(before):
                return False
            self.progress(f"tuning {self.modality} search with {len(queries)} queries")
            tuning = tune.tune(self.parts(), np.ascontiguousarray(queries, dtype=np.float32))
        elif probed:
            assert self.after.quantizer is not None
            tuning = before or tune.default(self.after.quantizer.nlist)
        self.after = replace(self.after, tuning=tuning)
        return tuning != before

    def _outgrown(self, measured: Tuning) -> bool:
        return abs(self.plan.live - measured.rows) > RETUNE_SHARE * measured.rows

    # -- publish -------------------------------------------------------------------------------------------------

    def publish(self, txn: Any) -> None:
        """Write everything of this modality but `meta`; may run again from its beginning if the map had to grow."""
        plan, modality = self.plan, self.modality
        for info in (*plan.merge, *plan.drop):
            txn.delete(catalog.removed_key(info.name))
        for info in plan.merge:  # the rows of a dropped shard lose their hashes with their items
            for row, value in self.shard(info.seq).values():
                body = json.loads(value)
                txn.delete(catalog.hash_key(modality, body["content"], info.seq, row))
        for info in self.after.shards:
            if plan.removed.get(info.seq):
                dead = np.flatnonzero(~self.live(info)).astype("<u4")
                txn.put(catalog.removed_key(info.name), dead.tobytes())
        if self.plan.train and self.trained is not None:
            txn.put(catalog.quantizer_key(modality), self.trained)
        for key, item in self.staging.changes(modality):
            entry = catalog.get_entry(txn, modality, key)
            if key in plan.kept:
                if item is not None and entry is not None and key in plan.touched:
                    self._put(txn, replace(entry, size=item.size, mtime_ns=item.mtime_ns))
                continue
            if entry is not None:
                txn.delete(catalog.hash_key(modality, entry.content, entry.seq, entry.row))
                if item is None:
                    txn.delete(catalog.item_key(modality, key))
        for info in self.sealed:
            for row, value in self.shard(info.seq).values():
                body = json.loads(value)
                key, content = body["key"], body["content"]
                _, item = self.staging.change(modality, key)
                state = catalog.get_entry(txn, modality, key) if item is None or key in plan.kept else item
                assert state is not None
                self._put(txn, Entry(info.seq, row, state.size, state.mtime_ns, content, key))
                txn.put(catalog.hash_key(modality, content, info.seq, row), b"")

    def _put(self, txn: Any, entry: Entry) -> None:
        key = catalog.item_key(self.modality, entry.key)
        txn.put(key, entry.pack(key))

    def report(self) -> ModalityReport:
        return ModalityReport(
            added=self.plan.new,
            removed=sum(len(rows) for rows in self.plan.removed.values()),
            touched=len(self.plan.touched),
            live=self.plan.live,
            sealed=tuple(shard.name for shard in self.sealed),
            dropped=tuple(shard.name for shard in (*self.plan.merge, *self.plan.drop)),
            trained=self.plan.train,
            tuning=self.after.tuning,
        )


def commit_all(
    directory: Path,
    meta: Meta,
    environment: Environment,
    staging: Staging,
    *,
    published: Meta | None,
    queries: Mapping[Modality, NDArray[np.float32]],
    progress: Callable[[str], None],
    compact: bool,
) -> tuple[Meta, dict[Modality, ModalityCommit], bool]:
    """Plan, seal, tune and publish both modalities.

    Args:
        directory: the index.
        meta: the state wanted but for its parts; its generation is the published one.
        environment: of the catalog, open for writing.
        staging: what changes.
        published: the published state, None before the first commit.
        queries: float32 (n, dim) to tune a modality with.
        progress: told what happens; an exception it raises stops the commit with nothing published.
        compact: rewrite shards so that no removed row is left and all but the last are full.

    Returns:
        The state now published, the commits (for their reports), and whether anything changed.
    """
    commits = {
        modality: ModalityCommit(directory, modality, meta, environment, staging, progress) for modality in meta.parts
    }
    for one in commits.values():
        one.make_plan(compact)
    tuned = []
    for modality, one in commits.items():
        one.seal()
        tuned.append(one.tune(queries.get(modality)))
    changed = meta != published or any(tuned) or any(one.plan.changes for one in commits.values())
    if not changed:
        return meta, commits, False
    after = meta.with_parts({modality: one.after for modality, one in commits.items()})

    def publish(txn: Any) -> None:
        for one in commits.values():
            one.publish(txn)
        txn.put(catalog.META, after.to_json())

    progress("publishing")
    environment.write(publish)
    progress("published")
    return after, commits, True
