"""Queries → hits: texts and pictures go through their towers, the index answers, and rows become records."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brivl_search.display import as_given
from brivl_search.encoders.base import Encoder
from brivl_search.encoders.registry import load_encoder
from brivl_search.errors import (
    BrivlSearchError,
    EncoderError,
    IndexIncompatibleError,
    IndexMissingError,
    UsageError,
)
from brivl_search.index import IndexReader, Modality, SearchResult
from brivl_search.search import dedupe
from brivl_search.search.filters import Filter, allowed
from brivl_search.search.hits import Hit
from brivl_search.search.queries import Query, Target, compose
from brivl_search.search.vectors import Vector, embed
from brivl_search.steps import step

__all__ = ["Engine", "Hit", "SearchOptions"]

_MASKS = 8  # filters whose rows are remembered
_EVERYTHING = Filter()

Masks = list[NDArray[np.bool_]]


@dataclass(frozen=True)
class SearchOptions:
    """How the index is searched; None leaves a value to the index's own tuning.

    Attributes:
        k: hits, or groups of them.
        exact: compare with every row.
        nprobe: inverted lists visited.
        rerank: candidates scored exactly.
        min_score: hits below this cosine are left out.
        min_match: hits below this probability are left out; only where one is known.
        filter: what hits must satisfy.
        alike: fold hits of at least this cosine into the best of them; None: do not.
    """

    k: int = 10
    exact: bool = False
    nprobe: int | None = None
    rerank: int | None = None
    min_score: float | None = None
    min_match: float | None = None
    filter: Filter = _EVERYTHING
    alike: float | None = None


_DEFAULTS = SearchOptions()


class Engine:
    """An open index and the encoder that fits it. Towers load when first needed. Threads may share it.

    Args:
        directory: the index.
        encoder: name of an encoder; None: the one the index was built with.
        device: torch device for the towers.
        stays: many queries will come: bring the index into memory in the background, see `IndexReader.warm`.

    Raises:
        IndexMissingError: no index there.
        IndexIncompatibleError: the index is damaged, or `encoder` is not the one it was built with.
    """

    def __init__(
        self, directory: Path, *, encoder: str | None = None, device: str = "auto", stays: bool = False
    ) -> None:
        self.reader = IndexReader.open(directory)
        self._stays = stays
        if stays:
            self.reader.warm()
        self._encoder_name, self._device = encoder, device
        self._masks: dict[tuple[IndexReader, Modality, Filter], Masks] = {}
        self._lock = threading.Lock()  # of what is replaced while threads search: the reader, the masks

    def refresh(self) -> bool:
        """Switches to the generation published last, without a restart; says whether there was a newer one.

        Called before every search, and cheap: see `IndexReader.stale`. Searches under way keep the generation they
        began with. An index that is gone for the moment is answered from as it was.

        Raises:
            IndexIncompatibleError: it is damaged now, or of another encoder.
        """
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        try:
            if not self.reader.stale():
                return False
            fresh = IndexReader.open(self.reader.directory)
        except IndexMissingError:
            return False
        if "encoder" in self.__dict__ and fresh.info.encoder.fingerprint != self.encoder.fingerprint:
            raise IndexIncompatibleError(
                f"the index at {fresh.directory} was built again with encoder {fresh.info.encoder.name!r}: open it anew"
            )
        self.reader = fresh
        self._masks.clear()
        if self._stays:
            fresh.warm()
        return True

    @cached_property
    def encoder(self) -> Encoder:
        built_with = self.reader.info.encoder
        where = self.reader.directory
        try:
            encoder = load_encoder(self._encoder_name or built_with.name, device=self._device)
        except EncoderError as error:
            if self._encoder_name:
                raise
            raise IndexIncompatibleError(
                f"the index at {where} needs its encoder {built_with.name!r}, which cannot be loaded ({error}): "
                "give its new place with --encoder"
            ) from None
        if encoder.fingerprint != built_with.fingerprint:
            raise IndexIncompatibleError(
                f"the index at {where} is of encoder {built_with.name!r} (fingerprint {built_with.fingerprint}), and "
                f"{encoder.name!r} is {encoder.fingerprint}: use --encoder with the one that fits, or build the index "
                "again with this one into another --index"
            )
        return encoder

    def by_text(self, text: str, options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a text: images, or captions with target="text". Raises as `query` does."""
        return self.query(compose(text), options, target=target)

    def by_image(self, path: str | os.PathLike[str], options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a picture: captions where the index has texts ("auto"), else similar images."""
        return self.query(compose(image=[path]), options, target=target)

    def query(self, query: Query, options: SearchOptions = _DEFAULTS, *, target: Target = "auto") -> list[Hit]:
        """The rows nearest to a sum of texts and pictures, best first.

        Args:
            query: what is looked for; its own k and target win.
            options: how.
            target: "auto": images, but for a single picture the captions if the index has any.

        Raises:
            UsageError: a picture is missing or none, terms cancel each other out, k < 1, a filter names a field that
                no record has, a match is asked for where none is known, or the index holds none of the target.
            IndexIncompatibleError: the encoder does not fit the index, or nothing of the index is left.
        """
        (answer,) = self.query_many([query], options, target=target)
        if isinstance(answer, BrivlSearchError):
            raise answer
        return answer

    def query_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = _DEFAULTS,
        *,
        target: Target = "auto",
        vectors: Sequence[Vector] | None = None,
    ) -> list[list[Hit] | BrivlSearchError]:
        """`query` for each of them, embedded and searched together; what is wrong with one spoils no other.

        Args:
            queries: what is looked for.
            options: how.
            target: as of `query`.
            vectors: of the queries, float32 (dim,), unit length, where they are known; None: the towers are asked.

        Raises:
            IndexIncompatibleError: the encoder does not fit the index, or nothing of the index is left.
        """
        self.refresh()
        answers: list[list[Hit] | BrivlSearchError] = [[] for _ in queries]
        wanted: list[tuple[Modality, int, int]] = []
        for number, query in enumerate(queries):
            try:
                k = query.k or options.k
                if k < 1:
                    raise UsageError(f"k is {k}: give a whole number from 1 on")
                modality = self._modality(query, query.target or target)
                self._check_match(query, modality, options)
                wanted.append((modality, k, number))
            except UsageError as error:
                answers[number] = error
        jobs = []
        if vectors is None:
            found_vectors = embed(self.encoder, [queries[number] for *_, number in wanted])
        else:
            found_vectors = [vectors[number] for *_, number in wanted]
        for (modality, k, number), vector in zip(wanted, found_vectors, strict=True):
            if isinstance(vector, UsageError):
                answers[number] = vector
            else:
                jobs.append((modality, k, number, vector))
        jobs.sort(key=lambda job: job[:3])
        for (modality, k), group in groupby(jobs, key=lambda job: job[:2]):
            some = list(group)
            numbers = [number for *_, number, _ in some]
            try:
                found = self._hits(
                    modality,
                    np.stack([vector for *_, vector in some]),
                    [queries[number].single for number in numbers],
                    replace(options, k=k),
                )
            except UsageError as error:
                found = [error] * len(some)
            for number, hits in zip(numbers, found, strict=True):
                answers[number] = hits
        return answers

    def cut_tokens(self, query: Query) -> int:
        """How many tokens of a query's texts the text tower does not see."""
        texts = query.texts
        return sum(self.encoder.cut_tokens(texts)) if texts else 0

    # -- the search ----------------------------------------------------------------------------------------------

    def _modality(self, query: Query, target: Target) -> Modality:
        if target == "auto":
            captions = query.single == "image" and self.reader.count("text")
            target = "text" if captions else "image"
        self._check_count(target)
        return target

    def _check_count(self, target: Modality) -> None:
        if not self.reader.count(target):
            if self.reader.damage:
                raise IndexIncompatibleError(self.reader.damage[0])
            what = {"image": "images", "text": "captions (captions.jsonl beside the images)"}[target]
            raise UsageError(f"the index at {self.reader.directory} holds no {what}")

    def _knows_match(self, single: str | None, modality: Modality) -> bool:
        return self.encoder.calibration is not None and single is not None and single != modality

    def _check_match(self, query: Query, modality: Modality, options: SearchOptions) -> None:
        if options.min_match is not None and not self._knows_match(query.single, modality):
            raise UsageError(
                "--min-match needs a match, which is known for one text against images or one picture against captions"
                + (", and this encoder has no calibration" if self.encoder.calibration is None else "")
                + ": use --min-score"
            )

    def _hits(
        self, modality: Modality, vectors: NDArray[np.float32], singles: Sequence[str | None], options: SearchOptions
    ) -> list[list[Hit] | BrivlSearchError]:
        """Hits of each query (n, dim); a shard that turns out to be damaged is left out and the search done again."""
        while True:
            reader = self.reader
            try:
                return list(self._attempt(reader, modality, vectors, singles, options))
            except _Damaged as damaged:
                self._leave_out(reader, modality, damaged)
                self._check_count(modality)

    def _attempt(
        self,
        reader: IndexReader,
        modality: Modality,
        vectors: NDArray[np.float32],
        singles: Sequence[str | None],
        options: SearchOptions,
    ) -> Iterator[list[Hit] | BrivlSearchError]:
        allow = self._allowed(reader, modality, options.filter)

        def search(queries: NDArray[np.float32], k: int) -> SearchResult:
            return reader.search(
                modality, queries, k, exact=options.exact, nprobe=options.nprobe, rerank=options.rerank, allow=allow
            )

        if options.alike is not None:
            for vector, single in zip(vectors, singles, strict=True):
                hits: list[Hit] = []
                for one in dedupe.group(reader, modality, vector, options.k, options.alike, search):
                    hit = self._hit(reader, modality, one.place, one.score, single, len(hits) + 1)
                    rest = [self._hit(reader, modality, *other, single, 0) for other in one.alike]
                    hits.append(replace(hit, duplicates=tuple(rest)))
                yield _good(hits, options)
            return
        found = search(vectors, options.k)
        for scores, shards, rows, single in zip(found.scores, found.shards, found.rows, singles, strict=True):
            places = zip(scores.tolist(), shards.tolist(), rows.tolist(), strict=True)
            yield _good(
                [
                    self._hit(reader, modality, (shard, row), score, single, rank)
                    for rank, (score, shard, row) in enumerate(places, 1)
                    if row >= 0
                ],
                options,
            )

    @step("records")
    def _hit(
        self, reader: IndexReader, modality: Modality, place: dedupe.Place, score: float, single: str | None, rank: int
    ) -> Hit:
        try:
            entry = reader.entry(modality, *place)
        except IndexIncompatibleError as error:  # a disk that fails under an open index
            raise _Damaged(place[0], str(error)) from None
        record = entry["record"]
        path = as_given(str(record.get("path" if modality == "image" else "image", "")), reader.info.roots)
        calibration = self.encoder.calibration
        match = calibration.probability(score) if calibration and self._knows_match(single, modality) else None
        return Hit(rank, score, modality, path, record.get("text"), record, match, key=entry["key"])

    def _leave_out(self, reader: IndexReader, modality: Modality, damaged: _Damaged) -> None:
        with self._lock:
            if self.reader is reader:  # else another thread has been here, or there is a new generation
                self.reader = reader.without(modality, damaged.shard, str(damaged))
                self._masks.clear()

    @step("search")
    def _allowed(self, reader: IndexReader, modality: Modality, wanted: Filter) -> Masks | None:
        if not wanted:
            return None
        key = (reader, modality, wanted)
        masks = self._masks.get(key)
        if masks is None:
            masks = allowed(reader, modality, wanted)
            with self._lock:
                while len(self._masks) >= _MASKS:
                    self._masks.pop(next(iter(self._masks)))
                self._masks[key] = masks
        return masks


class _Damaged(Exception):
    """A row of an open shard is not what was sealed."""

    def __init__(self, shard: int, why: str) -> None:
        super().__init__(why)
        self.shard = shard


def _good(hits: list[Hit], options: SearchOptions) -> list[Hit]:
    """Those that score and match high enough; both fall from hit to hit."""
    return [
        hit
        for hit in hits
        if (options.min_score is None or hit.score >= options.min_score)
        and (options.min_match is None or (hit.match or 0.0) >= options.min_match)
    ]
