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

from brivl_search.errors import BrivlSearchError
from brivl_search.index import catalog, ivfpq, tune
from brivl_search.index.catalog import Entry, Meta, Quantizer
from brivl_search.index.hubs import carried_numbers, sealed_numbers
from brivl_search.index.plan import DRIFT_SAMPLE, RETUNE_SHARE, ModalityPlan
from brivl_search.index.seal import Row, seal
from brivl_search.index.search import Searched
from brivl_search.index.shard import Shard, parse_value, record_value
from brivl_search.index.staging import Staging
from brivl_search.index.store import Environment
from brivl_search.index.types import Correction, Item, Modality, ModalityReport, Tuning
from brivl_search.metrics.hub_correction import HubCorrection

_LET_GO = 16_384  # staged items after which what reading them took is given back


class ModalityCommit(ModalityPlan):
    """The commit of one modality: `make_plan`, `seal`, `tune`, then `publish` inside the catalog's transaction."""

    # -- seal ----------------------------------------------------------------------------------------------------

    def rows(self, *, regions: bool = True) -> Iterator[Row]:
        """Every row of the shards to be written: live rows of merged shards, then new ones by key.

        Args:
            regions: what rows have of them is read as well.
        """
        wanted = self.before.regions.fingerprint if regions and self.before.regions else None
        for info in self.plan.merge:
            live, shard = self.live(info), self.shard(info.seq)
            for row, value in shard.values():
                if live[row]:
                    yield value, shard.vectors[row], self._regions_of(shard, row, value, wanted)
        for number, (key, item) in enumerate(self.staging.changes(self.modality), start=1):
            if number % _LET_GO == 0:
                self.staging.let_go()
            if item is not None and key not in self.plan.kept:
                value = record_value(key, item.content, dict(item.record))
                yield value, self._vector(item), self._regions(item.content, wanted)

    def _regions_of(self, shard: Shard, row: int, value: bytes, fingerprint: str | None) -> bytes | None:
        """What is kept of a row's regions; what is staged of its picture where the row has none yet."""
        if fingerprint is None:
            return None
        kept = shard.regions(row, fingerprint)
        return kept or self.staging.regions(parse_value(value)["content"], fingerprint)

    def _regions(self, content: str, fingerprint: str | None) -> bytes | None:
        """Of a new row: staged, or those of another row with this picture."""
        if fingerprint is None:
            return None
        staged = self.staging.regions(content, fingerprint)
        if staged is not None:
            return staged
        with self.environment.read() as txn:
            places = catalog.places_of(txn, self.modality, content)
        found = (self.shard(seq).regions(row, fingerprint) for seq, row in places)
        return next((one for one in found if one is not None), None)

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
                regions=part.regions.fingerprint if part.regions else "",
            )
            self.sealed.append(info)
            self.progress(f"sealed {name}")
            left, seq = left - count, seq + 1
        self.let_go()
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
        for wanted, (_, vector, _) in zip(chosen, self.rows(regions=False), strict=True):
            if wanted:
                sample[filled] = vector
                filled += 1
        self.let_go()
        self.trained = ivfpq.train(sample, nlist, m, self.meta.seed, codec)
        error = ivfpq.coding_error(self.trained, sample[:: max(1, size // DRIFT_SAMPLE)])
        return Quantizer(nlist, m, size, hashlib.sha256(self.trained).hexdigest(), codec, error)

    # -- hubs ----------------------------------------------------------------------------------------------------

    def correct(self, published: Correction | None, given: HubCorrection | None) -> None:
        """Have a number for every row of every shard: those of unchanged shards stay, those of merged rows go along.

        Args:
            published: what the stored numbers were computed with; None: there are none.
            given: a correction that takes its place; None: what is in force stays, or is dropped.
        """
        wanted = self.after.correction
        self.given, self.corrected_anew = given, wanted != published
        if wanted is None:
            return
        path = catalog.catalog_path(self.directory)
        known: dict[int, NDArray[np.float32] | None] = {}
        with self.environment.read() as txn:
            correction = given or catalog.get_correction(txn, self.modality, path)
            if wanted == published:
                known = {info.seq: catalog.get_lowered(txn, info.name, info.rows) for info in self.before.shards}
        new = {info.seq for info in self.sealed}
        carried = carried_numbers(self.plan.merge, known, self.live)
        self.fresh = sealed_numbers(correction, self.sealed, carried, self.shard)
        for info in self.after.shards:
            stored = known.get(info.seq)
            if info.seq not in new and stored is None:
                self.progress(f"correcting hubs of {info.name}: {info.rows:,} rows")
                self.fresh[info.name] = correction.of(self.shard(info.seq).vectors)
            self.lowered[info.seq] = self.fresh[info.name] if stored is None else stored
        self.let_go()

    def _publish_numbers(self, txn: Any) -> None:
        kept = {info.name for info in self.after.shards} if self.after.correction is not None else set()
        for info in self.before.shards:
            if info.name not in kept:
                txn.delete(catalog.lowered_key(info.name))
        for name, numbers in self.fresh.items():
            txn.put(catalog.lowered_key(name), numbers.astype("<f4").tobytes())
        if self.given is not None:
            txn.put(catalog.correction_key(self.modality), self.given.to_bytes())
        elif self.after.correction is None:
            txn.delete(catalog.correction_key(self.modality))

    # -- tune ----------------------------------------------------------------------------------------------------

    def parts(self) -> list[Searched]:
        found = []
        for info in self.after.shards:
            live = self.live(info)
            count = int(live.sum())
            lowered = self.lowered.get(info.seq)
            found.append(Searched(self.shard(info.seq), None if count == info.rows else live, count, lowered))
        return found

    def tune(self, queries: NDArray[np.float32] | None) -> bool:
        """Choose nprobe and rerank where a shard is of kind ivfpq; says whether anything changed."""
        probed = any(shard.kind == "ivfpq" for shard in self.after.shards)
        before = self.after.tuning
        tuning: Tuning | None = None
        if before is not None and self.corrected_anew:  # what was measured is not what is found now
            self.after = replace(self.after, tuning=replace(before, recall=None, kind="not measured"))
        stands = self.after.tuning
        if probed and queries is not None and len(queries):
            if stands is not None and stands.recall is not None and not self._outgrown(stands):
                return False
            self.progress(f"tuning {self.modality} search with {len(queries)} queries")
            parts, vectors = self.parts(), np.ascontiguousarray(queries, dtype=np.float32)
            tuning = tune.tune(parts, vectors, strength=tune.full_strength(parts, vectors))
            self.let_go()
        elif probed:
            assert self.after.quantizer is not None
            tuning = stands or tune.default(self.after.quantizer.nlist)
        self.after = replace(self.after, tuning=tuning)
        return tuning != before

    def _outgrown(self, measured: Tuning) -> bool:
        changed = max(abs(self.plan.live - measured.rows), self.plan.replaced_rows)
        return changed > RETUNE_SHARE * measured.rows

    # -- publish -------------------------------------------------------------------------------------------------

    def publish(self, txn: Any) -> None:
        """Write everything of this modality but `meta`; may run again from its beginning if the map had to grow."""
        plan, modality = self.plan, self.modality
        self._publish_numbers(txn)
        for info in (*plan.merge, *plan.drop):
            txn.delete(catalog.removed_key(info.name))
            txn.delete(catalog.times_key(info.name))
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
        times: dict[int, NDArray[np.int64] | None] = {}  # of the shards with a file that was touched
        infos = {info.seq: info for info in self.after.shards}
        for key, item in self.staging.changes(modality):
            entry = catalog.get_entry(txn, modality, key)
            if key in plan.kept:
                if item is not None and entry is not None and key in plan.touched:
                    self._put(txn, replace(entry, size=item.size, mtime_ns=item.mtime_ns, origin=item.origin))
                    if modality == "image" and (shard := infos.get(entry.seq)) is not None:
                        if shard.seq not in times:
                            times[shard.seq] = catalog.get_times(txn, shard.name, shard.rows)
                        if (known := times[shard.seq]) is not None:
                            known[entry.row] = catalog.file_time(item.size, item.mtime_ns)
                continue
            if entry is not None:
                txn.delete(catalog.hash_key(modality, entry.content, entry.seq, entry.row))
                if item is None:
                    txn.delete(catalog.item_key(modality, key))
        for info in self.sealed:
            times[info.seq] = fresh = np.zeros(info.rows, np.int64)
            for row, value in self.shard(info.seq).values():
                body = json.loads(value)
                key, content = body["key"], body["content"]
                _, item = self.staging.change(modality, key)
                state = catalog.get_entry(txn, modality, key) if item is None or key in plan.kept else item
                assert state is not None
                self._put(txn, Entry(info.seq, row, state.size, state.mtime_ns, content, key, state.origin))
                fresh[row] = catalog.file_time(state.size, state.mtime_ns)
                txn.put(catalog.hash_key(modality, content, info.seq, row), b"")

        for seq, moments in times.items() if modality == "image" else ():
            if moments is not None:
                txn.put(catalog.times_key(infos[seq].name), moments.astype("<i8").tobytes())

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
    corrections: Mapping[Modality, HubCorrection] | None = None,
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
        corrections: for hubs, where `meta` speaks of other ones than are published.

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
        one.correct(published.parts[modality].correction if published else None, (corrections or {}).get(modality))
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
