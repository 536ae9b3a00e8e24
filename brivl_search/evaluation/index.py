"""An index over its own caption pairs: exactly over all rows, and as the index answers, with the time that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from brivl_search.embedding.reranker import TOP, Reranker
from brivl_search.errors import IndexIncompatibleError, UsageError
from brivl_search.evaluation.pairs import DIRECTIONS, DirectionName, Pairs, first_of_each
from brivl_search.evaluation.reordered import Reordered
from brivl_search.evaluation.result import (
    RE_ORDERED,
    Evaluation,
    EvaluationOptions,
    Latency,
    Searched,
    evaluation_of,
    ranked,
    timed,
)
from brivl_search.index import IndexReader, Modality
from brivl_search.metrics import ranks_in_lists

BATCH = 256
LIST_DEPTH = 100  # of the lists that ranks through the index come from


def evaluate_index(
    reader: IndexReader,
    ks: Sequence[int],
    fields: Sequence[str] | None = None,
    *,
    options: EvaluationOptions | None = None,
    encode: Callable[[Sequence[str]], np.ndarray] | None = None,
    reranker: Reranker | None = None,
    rerank_top: int = TOP,
) -> Evaluation:
    """Ranks the index's own captions against its images: over all rows exactly, and as the index answers.

    Args:
        reader: the index.
        ks: cut-offs of R@k.
        fields: which captions; None: all.
        options: definition and intervals.
        encode: texts as queries → float32 (n, dim), for an encoder that reads them differently from captions; None:
            the captions' own vectors are the queries.
        reranker: a matcher, which re-orders the first hits of every query; None: there is none.
        rerank_top: how many.

    Raises:
        UsageError: the index holds no captions, or none of the `fields`.
        IndexIncompatibleError: a shard is damaged; figures without it would be wrong.
    """
    options = options or EvaluationOptions()
    if reader.damage:
        raise IndexIncompatibleError(reader.damage[0])
    images, texts = _Side(reader, "image"), _Side(reader, "text")
    if not len(texts.rows):
        raise UsageError(
            f"the index at {reader.directory} holds no captions to evaluate with: put captions.jsonl beside the images "
            "and build again, or use `dataset`"
        )
    by_person = [record.get("generated") is not True for record in texts.records]
    if not any(by_person):
        raise UsageError(
            f"the {len(by_person):,} captions in the index at {reader.directory} are generated, and no truth: put "
            "captions.jsonl beside the images and build again, or use `dataset`"
        )
    texts.keep(by_person)
    there = list(dict.fromkeys(str(record["field"]) for record in texts.records))
    missing = [name for name in fields or () if name not in there]
    if missing:
        raise UsageError(f"`captions` {missing[0]}: the index holds captions of {', '.join(there)}")
    texts.keep([record["field"] in (fields or there) for record in texts.records])
    number = {record["path"]: i for i, record in enumerate(images.records)}
    texts.keep([record["image"] in number for record in texts.records])
    owners = [number[record["image"]] for record in texts.records]
    if not owners:
        raise UsageError(f"no caption in the index at {reader.directory} belongs to an image in it: add the images")
    notes: list[str] = []
    if generated := len(by_person) - sum(by_person):
        notes.append(f"{generated:,} generated captions are left out: they are no truth")
    if options.definition == "diagonal":
        owners = _one_to_one(images, texts, owners, notes)
    captions = [str(record["text"]) for record in texts.records]
    pairs = Pairs(
        captions,
        [str(record["path"]) for record in images.records],
        [[owner] for owner in owners],
        texts.vectors,
        images.vectors,
        lowered=images.lowered,
        text_queries=_as_queries(captions, encode),
    )
    bare = len(images.records) - len(pairs.with_texts)
    if bare:
        notes.append(f"{bare} images have no caption: candidates, not queries")
    searched: dict[DirectionName, dict[str, Searched]] = {}
    latency: dict[DirectionName, Latency] = {}
    matcher_time: dict[DirectionName, Latency] = {}
    matcher = None if reranker is None else Reordered(reranker, pairs, rerank_top)
    for name in DIRECTIONS:
        way = pairs.direction(name)
        side = images if name == "text_to_image" else texts
        lists = _lists(side, way.queries, max(ks))
        through = Searched(ranks_in_lists(lists, way.truth, len(side.rows)), lists)
        searched[name] = {**ranked(pairs, name), "through_index": through}
        latency[name] = _latency(side, way.queries, max(ks))
        if matcher is not None:
            after = matcher.lists(way, lists)
            searched[name][RE_ORDERED] = Searched(ranks_in_lists(after, way.truth, len(side.rows)), after)
            matcher_time[name] = matcher.latency(way, lists)
    if reranker is not None:
        notes += [f"not re-ordered: {path}: {why}" for path, why in reranker.unread.items()]
    return evaluation_of(
        pairs,
        searched,
        ks,
        options,
        source=str(reader.directory),
        fields=tuple(fields or there),
        encoder=reader.info.encoder.name,
        notes=notes,
        latency=latency,
        matcher=None if reranker is None else _facts(reranker, rerank_top),
        matcher_time=matcher_time,
    )


def _as_queries(texts: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray] | None) -> np.ndarray | None:
    if encode is None:
        return None
    return np.concatenate([encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])


def _facts(reranker: Reranker, top: int) -> dict[str, Any]:
    matcher = reranker.matcher
    return {
        "name": matcher.name,
        "fingerprint": matcher.fingerprint,
        "top": top,
        "cosine_weight": matcher.cosine_weight,
    }


def _one_to_one(images: _Side, texts: _Side, owners: list[int], notes: list[str]) -> list[int]:
    """Leaves the first caption of each image, and the images that have one; returns the new owners."""
    chosen = set(first_of_each(owners))
    if len(chosen) < len(owners):
        notes.append(f"the index's first caption of each image: {len(chosen):,} of {len(owners):,} captions")
    texts.keep([i in chosen for i in range(len(owners))])
    left = sorted(chosen)
    kept = sorted({owners[i] for i in left})
    if len(kept) < len(images.records):
        notes.append(f"{len(images.records) - len(kept)} images have no caption and are left out")
    wanted = set(kept)
    images.keep([i in wanted for i in range(len(images.records))])
    place = {image: at for at, image in enumerate(kept)}
    return [place[owners[i]] for i in left]


class _Side:
    """One modality of an index: vectors float16 (n, dim), records, and shard and row of each, int64 (n, 2).

    Queries are of the other modality, so images are searched with the correction for hubs, where the index has one.
    """

    def __init__(self, reader: IndexReader, modality: Modality) -> None:
        self.reader, self.modality = reader, modality
        blocks = list(reader.vectors(modality))
        dim = reader.info.encoder.dim
        self.vectors = np.concatenate([np.zeros((0, dim), np.float16), *(vectors for vectors, _, _ in blocks)])
        places = [np.stack([np.full(len(rows), shard), rows], axis=1) for _, shard, rows in blocks]
        self.rows = np.concatenate([np.zeros((0, 2), np.int64), *places])
        self.records: list[dict[str, Any]] = [record for _, _, record in reader.records(modality)]
        numbers = reader.lowered(modality)
        self.lowered = None if numbers is None else np.concatenate([numbers[shard][rows] for _, shard, rows in blocks])
        self.whole = True

    def keep(self, wanted: Sequence[bool]) -> None:
        """Leaves only these rows, here and for `search`."""
        if all(wanted):
            return
        self.whole = False
        mask = np.asarray(wanted, dtype=bool)
        self.vectors, self.rows = self.vectors[mask], self.rows[mask]
        self.lowered = None if self.lowered is None else self.lowered[mask]
        self.records = [record for record, yes in zip(self.records, wanted, strict=True) if yes]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Numbers of the kept rows as the index ranks them, int64 (n, k), -1 padded."""
        shards = self.reader.info.of(self.modality).shards
        number = [np.full(shard.rows, -1, dtype=np.int64) for shard in shards]
        for shard, places in enumerate(number):
            mine = np.flatnonzero(self.rows[:, 0] == shard)
            places[self.rows[mine, 1]] = mine
        allow = None if self.whole else [places >= 0 for places in number]
        out = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(queries), BATCH):
            some = queries[start : start + BATCH]
            found = self.reader.search(self.modality, some, k, allow=allow, strength=np.ones(len(some), np.float32))
            block = out[start : start + BATCH]
            for shard, places in enumerate(number):
                here = found.shards == shard
                block[here] = places[found.rows[here]]
        return out


def _lists(side: _Side, queries: np.ndarray, k: int) -> np.ndarray:
    """What the index answers, LIST_DEPTH deep; the first k as it answers those who ask for k.

    IVF-PQ re-ranks more candidates the more hits are asked for, so the top 10 of a deep list is better than what a
    query for 10 gets. int64 (n, depth), -1 padded.
    """
    depth = min(max(k, LIST_DEPTH), len(side.rows))
    deep = side.search(queries, depth)
    if depth <= k or _same_candidates(side, depth):
        return deep
    shallow = side.search(queries, k)
    out = np.full((len(queries), depth), -1, dtype=np.int64)
    out[:, : shallow.shape[1]] = shallow
    for row, first, more in zip(out, shallow, deep, strict=True):
        rest = more[~np.isin(more, first)][: depth - len(first)]
        row[len(first) : len(first) + len(rest)] = rest
    return out


def _same_candidates(side: _Side, depth: int) -> bool:
    """Whether a query for `depth` re-ranks what a shorter one does, so that one search answers both.

    The index re-ranks the tuned number, at least four times the hits asked for. It visits more lists only where those
    of the tuning hold too few rows. Four times as many rows in them as are re-ranked leave no doubt.
    """
    info = side.reader.info.of(side.modality)
    if info.kind == "exact":
        return True
    tuning = info.tuning
    if tuning is None or not side.whole or tuning.rerank < 4 * depth:
        return False
    smallest = min(shard.rows for shard in info.shards)
    return tuning.nprobe * smallest >= 4 * tuning.rerank * info.nlist


def _latency(side: _Side, queries: np.ndarray, k: int) -> Latency:
    """Single queries spread over all of them; rows are never filtered, as in an ordinary query."""
    chosen = np.linspace(0, len(queries) - 1, min(len(queries), 500)).astype(np.int64)
    some = np.ascontiguousarray(queries[chosen], dtype=np.float32)
    return timed(
        lambda i: side.reader.search(side.modality, some[i : i + 1], k, strength=np.ones(1, np.float32)),
        len(some),
        f"one query for {k} through the index; encoder excluded",
    )
