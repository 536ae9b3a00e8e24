"""What a commit will do to one modality: which rows go, which shards are rewritten, whether the quantizer is trained
anew and the search tuned anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import catalog, ivfpq
from brivl_search.index.catalog import Entry, Meta, Quantizer
from brivl_search.index.shard import Shard
from brivl_search.index.staging import Staging
from brivl_search.index.store import Environment
from brivl_search.index.types import Item, Modality, ShardInfo
from brivl_search.metrics.hub_correction import HubCorrection

MERGE_ROWS = 20_000  # a last shard up to this size is merged whatever the number of new rows
MERGE_RATIO = 4  # and up to this multiple of the new rows, so that rows are rewritten O(log) times
RETUNE_SHARE = 0.1  # a measured recall stands until this share of the rows came or went
RETRAIN_RATIO = 4  # lists wanted / lists there are, from which on the quantizer is trained anew
COMPACT_RATIO = 2  # the same when compacting, which rewrites everything anyway
DRIFT = 1.1  # rows' coding error / that of the training rows, from which on compacting trains the quantizer anew
DRIFT_SAMPLE = 4096


@dataclass
class Plan:
    """What a commit does to one modality.

    Attributes:
        removed: shard seq -> rows that stop counting with this commit.
        new: staged items that need a row.
        kept: staged keys that need none: nothing but the file's size, mtime or origin changed, if that.
        touched: those of `kept` whose size, mtime or origin changed.
        gone: staged keys whose item is removed.
        replaced: contents that were given another vector than published rows have.
        replaced_rows: how many such rows there are.
        merge: shards to be rewritten.
        drop: shards without a live row.
    """

    removed: dict[int, set[int]] = field(default_factory=dict)
    new: int = 0
    kept: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    replaced_rows: int = 0
    merge: list[ShardInfo] = field(default_factory=list)
    drop: list[ShardInfo] = field(default_factory=list)
    live: int = 0
    train: bool = False
    ivfpq: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        return bool(self.removed or self.new or self.touched or self.merge or self.drop)


class ModalityPlan:
    """Compares what is staged for one modality with what is published, and decides what is written.

    Args:
        directory: the index.
        modality: of all items here.
        meta: the state wanted but for its parts.
        environment: of the catalog.
        staging: what changes.
        progress: told in one line each what is going on.
    """

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
        self.lowered: dict[int, NDArray[np.float32]] = {}  # by shard, where scores are corrected for hubs
        self.fresh: dict[str, NDArray[np.float32]] = {}  # of these, what is to be stored
        self.given: HubCorrection | None = None
        self.corrected_anew = False
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

    def let_go(self) -> None:
        """Give back the memory that reading shards and the staging took: maps count as memory in use."""
        self._open.clear()
        self.staging.let_go()

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
        self._follow_given()
        for key, item in self.staging.changes(self.modality):
            with self.environment.read() as txn:
                entry = catalog.get_entry(txn, self.modality, key)
            if item is not None and entry is not None and self._same(entry, item):
                plan.kept.add(key)
                if (entry.size, entry.mtime_ns, entry.origin) != (item.size, item.mtime_ns, item.origin):
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
        fill = self._without_staged_regions()
        if plan.train or compact:
            kind = "ivfpq" if plan.ivfpq else "exact"
            tidy = not fill and all(
                shard.kind == kind and rest[shard.seq] == shard.rows and not self._has_other_regions(shard)
                for shard in stay
            )
            tidy = tidy and all(shard.rows == self.meta.shard_rows for shard in stay[:-1])
            plan.merge = stay if plan.train or not tidy else []
            return
        if plan.ivfpq:  # exact shards of a time before the quantizer, or of index_type="exact"
            plan.merge = [shard for shard in stay if shard.kind == "exact"]
            stay = [shard for shard in stay if shard.kind == "ivfpq"]
        plan.merge += [shard for shard in stay if shard.seq in fill]
        stay = [shard for shard in stay if shard.seq not in fill]
        total = plan.new + sum(rest[shard.seq] for shard in plan.merge)
        while total and stay:
            size = rest[stay[-1].seq]
            if size > max(MERGE_RATIO * total, MERGE_ROWS) or total + size > self.meta.shard_rows:
                break
            plan.merge.append(stay.pop())
            total += size
        plan.merge.sort(key=lambda shard: shard.seq)

    def _without_staged_regions(self) -> set[int]:
        """Shards, by number, with a live row that has no regions yet although they are staged."""
        wanted, found = self.before.regions, set()
        if wanted is not None:
            with self.environment.read() as txn:
                for content in self.staging.with_regions(wanted.fingerprint):
                    for seq, row in catalog.places_of(txn, self.modality, content):
                        if seq not in found and not self.shard(seq).kept(wanted.fingerprint)[row]:
                            found.add(seq)
        return found

    def _has_other_regions(self, info: ShardInfo) -> bool:
        """Does a shard keep regions of a matcher that is not the index's?"""
        kept, wanted = self.shard(info.seq).meta().get("regions"), self.before.regions
        return kept is not None and (wanted is None or kept["fingerprint"] != wanted.fingerprint)

    def _follow_given(self) -> None:
        """Find the contents whose published rows have another vector than was given; all items of these are staged."""
        if not self.before.shards:
            return
        moved: dict[str, Item] = {}
        with self.environment.read() as txn:
            for content in self.staging.given(self.modality):
                places = catalog.places_of(txn, self.modality, content)
                vector = self.staging.vector(self.modality, content)
                assert vector is not None
                if all(np.array_equal(self.shard(seq).vectors[row], vector) for seq, row in places):
                    continue
                self.plan.replaced.add(content)
                self.plan.replaced_rows += len(places)
                for seq, row in places:
                    body = self.shard(seq).entry(row)
                    entry = catalog.get_entry(txn, self.modality, body["key"])
                    if entry is not None:
                        moved[entry.key] = Item(
                            entry.key, content, entry.size, entry.mtime_ns, body["record"], entry.origin
                        )
        for key, item in moved.items():
            if not self.staging.change(self.modality, key)[0]:
                self.staging.put(self.modality, key, item)

    def _same(self, entry: Entry, item: Item) -> bool:
        """Is the published row still right for the item, but for the file's size and mtime?"""
        if entry.content != item.content or item.content in self.plan.replaced:
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
        if grown >= (COMPACT_RATIO if compact else RETRAIN_RATIO) or 2 * plan.replaced_rows > plan.live:
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
