"""Queries → hits: texts and pictures go through their towers, the index answers, and rows become records.

The steps, and the modules that hold them:

    queries   what is looked for        vectors   through the towers      filters    what hits must satisfy
    options   how                       live      the open index          allowed    the rows that do
    nearest   vectors → scored rows     dedupe    alike rows are folded   records    scored rows → hits
    match     the chance of a hit       hits      what comes out          unmatched  why a filter lets nothing through
    sample    what hits are held to     count     how many fit            words      what the tower does not know
    rerank    a matcher's order
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import numpy as np

from brivl_search.embedding.query_pictures import Vector
from brivl_search.encoders.base import confidence_of
from brivl_search.errors import BrivlSearchError, IndexIncompatibleError, UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.search import match, rerank
from brivl_search.search.count import LOOKED_AT, Count, estimate
from brivl_search.search.hits import Hit
from brivl_search.search.live import LiveIndex
from brivl_search.search.nearest import nearest
from brivl_search.search.options import DEFAULTS, SearchOptions
from brivl_search.search.queries import Query, Target, compose
from brivl_search.search.records import DamagedRow, to_hits
from brivl_search.search.rerank import QueryPicture
from brivl_search.search.rows import RowId
from brivl_search.search.unmatched import Reason
from brivl_search.search.vectors import embed
from brivl_search.search.words import is_empty_to, unknown_of

T = TypeVar("T")

__all__ = ["Engine", "Hit", "SearchOptions"]


@dataclass(frozen=True, eq=False)
class _Job:
    """A query of several, ready to be searched: what is searched, for how many hits, with which vector."""

    number: int
    query: Query
    modality: Modality
    k: int
    vector: Vector
    shown: QueryPicture | None = None


class Engine(LiveIndex):
    """An open index that answers queries. Towers load when first needed. Threads may share it.

    The arguments are those of `LiveIndex`.
    """

    def by_text(self, text: str, options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a text: images, or captions with target="text". Raises as `query` does."""
        return self.query(compose(text), options, target=target)

    def by_image(self, path: str | os.PathLike[str], options: SearchOptions, *, target: Target = "auto") -> list[Hit]:
        """Rows nearest to a picture: captions where the index has texts ("auto"), else similar images."""
        return self.query(compose(image=[path]), options, target=target)

    def query(self, query: Query, options: SearchOptions = DEFAULTS, *, target: Target = "auto") -> list[Hit]:
        """The rows nearest to a sum of texts and pictures, best first.

        Args:
            query: what is looked for; its own k and target win.
            options: how.
            target: "auto": images, but for a single picture the captions if the index has any.

        Raises:
            UsageError: a picture is missing or none, terms cancel each other out, k < 1, a filter names a field or a
                folder that the index does not have, a match is asked for where none is known, or the index holds none
                of the target.
            IndexIncompatibleError: the encoder does not fit the index, or nothing of the index is left.
        """
        (answer,) = self.query_many([query], options, target=target)
        if isinstance(answer, BrivlSearchError):
            raise answer
        return answer

    def query_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULTS,
        *,
        target: Target = "auto",
        vectors: Sequence[Vector] | None = None,
        shown: Sequence[QueryPicture | None] | None = None,
    ) -> list[list[Hit] | BrivlSearchError]:
        """`query` for each of them, embedded and searched together; what is wrong with one spoils no other.

        Args:
            queries: what is looked for.
            options: how. The matcher that re-orders is loaded when it is first asked for.
            target: as of `query`.
            vectors: of the queries, float32 (dim,), unit length, where they are known; None: the towers are asked.
            shown: the queries' pictures, decoded or of the index, for a matcher; None: it reads them from the query.

        Raises:
            IndexIncompatibleError: the encoder does not fit the index, or nothing of the index is left.
            EncoderError, UsageError: the matcher does not fit the encoder, cannot be loaded, or there is none.
        """
        self.refresh()
        if options.rerank_with is not None:
            self.reranker(options.rerank_with)
        answers: list[list[Hit] | BrivlSearchError] = [[] for _ in queries]
        wanted: list[tuple[int, Modality, int]] = []
        for number, query in enumerate(queries):
            try:
                wanted.append((number, *self._aim(query, options, target)))
            except UsageError as error:
                answers[number] = error
        if vectors is None:
            found = embed(self.encoder, [queries[number] for number, *_ in wanted])
        else:
            found = [vectors[number] for number, *_ in wanted]
        jobs = []
        for (number, modality, k), vector in zip(wanted, found, strict=True):
            if isinstance(vector, UsageError):
                answers[number] = vector
            else:
                picture = None if shown is None else shown[number]
                jobs.append(_Job(number, queries[number], modality, k, vector, picture))
        jobs.sort(key=lambda job: (job.modality, job.k))
        for (modality, k), group in groupby(jobs, key=lambda job: (job.modality, job.k)):
            together = list(group)
            try:
                hits = self._search(modality, together, replace(options, k=k))
            except UsageError as error:
                hits = [error] * len(together)
            for job, answer in zip(together, hits, strict=True):
                answers[job.number] = answer
        return answers

    def why_nothing(self, query: Query, options: SearchOptions, *, target: Target = "auto") -> Reason | None:
        """Why a query has no hits because of its filter: None if the filter lets something through, or is none.

        For a query without hits; it reads every record of the index. Raises UsageError as `query` does.
        """
        return self.nothing_fits(self._modality(query, query.target or target), options.filter)

    def count(
        self,
        query: Query,
        options: SearchOptions = DEFAULTS,
        *,
        target: Target = "auto",
        vector: Vector | None = None,
    ) -> Count:
        """About how many rows fit a query, of those that the filter lets through. It takes as long as 2,000 hits.

        Args:
            query: one text, or one picture for captions.
            options: how; numbers of hits, least scores and `alike` say nothing here.
            target: as of `query`.
            vector: of the query, where it is known.

        Raises:
            UsageError: as `query` does; or the chances of hits are not known.
            IndexIncompatibleError: as `query` does.
        """
        self.refresh()
        modality = self._modality(query, query.target or target)
        match.check(self.encoder, query, modality, "`count`")
        confidence = confidence_of(self.encoder)
        if confidence is None:
            raise UsageError(
                "`count` needs the chances of hits, and this encoder has a calibration of pairs alone",
                code="no_match",
                details={"calibrated": True},
            )
        found = embed(self.encoder, [query])[0] if vector is None else vector
        if isinstance(found, UsageError):
            raise found
        wanted = replace(options, k=LOOKED_AT, alike=None)

        def attempt(reader: IndexReader) -> Count:
            allow = self.allowed(reader, modality, options.filter)
            (best,) = nearest(reader, modality, found[None], wanted, allow)
            return estimate(confidence, reader, modality, found, best, self.sample(reader, modality, allow))

        return self._without_damage(modality, attempt)

    def remembers(self, query: Query, options: SearchOptions, *, target: Target = "auto") -> bool:
        """Whether a query's filter needs no evaluation any more; also if the query cannot be answered at all."""
        try:
            return self.knows(self._modality(query, query.target or target), options.filter)
        except BrivlSearchError:
            return True

    def target(self, query: Query, target: Target = "auto") -> Modality:
        """What a query finds. Raises UsageError: the index holds none of it."""
        return self._modality(query, query.target or target)

    def cut_tokens(self, query: Query) -> int:
        """How many tokens of a query's texts the text tower does not see."""
        texts = query.texts
        return sum(self.encoder.cut_tokens(texts)) if texts else 0

    def unknown_words(self, query: Query) -> list[str]:
        """The words of a query's texts that the text tower does not know, as it reads them, each once."""
        return unknown_of(self.encoder, query)

    def knows_nothing(self, query: Query) -> bool:
        """Whether a query is texts alone and the text tower knows no word of any of them: its hits mean nothing."""
        texts = query.texts
        return len(texts) == len(query.terms) and all(is_empty_to(self.encoder, text) for text in texts)

    # -- what is searched ----------------------------------------------------------------------------------------

    def _aim(self, query: Query, options: SearchOptions, target: Target) -> tuple[Modality, int]:
        """What is searched for a query, and for how many hits. Raises UsageError."""
        k = query.k or options.k
        if k < 1:
            raise UsageError(f"k is {k}: give a whole number from 1 on", code="bad_k", details={"k": k})
        modality = self._modality(query, query.target or target)
        if options.min_match is not None:
            match.check(self.encoder, query, modality)
        if options.rerank_with is not None:
            rerank.check(query, modality)
        return modality, k

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
            raise UsageError(
                f"the index at {self.reader.directory} holds no {what}",
                code="nothing_of_target",
                details={"target": target + "s"},
            )

    # -- the search ----------------------------------------------------------------------------------------------

    def _search(
        self, modality: Modality, jobs: Sequence[_Job], options: SearchOptions
    ) -> list[list[Hit] | BrivlSearchError]:
        """Hits of each query."""
        return self._without_damage(modality, lambda reader: list(self._attempt(reader, modality, jobs, options)))

    def _without_damage(self, modality: Modality, attempt: Callable[[IndexReader], T]) -> T:
        """What `attempt` finds; a shard that turns out to be damaged is left out, and it is done again."""
        while True:
            reader = self.reader
            try:
                if cut := reader.cut_short(modality):
                    raise DamagedRow(*cut)
                return attempt(reader)
            except DamagedRow as damaged:
                self.leave_out(reader, modality, damaged.shard, str(damaged))
                self._check_count(modality)

    def _attempt(
        self, reader: IndexReader, modality: Modality, jobs: Sequence[_Job], options: SearchOptions
    ) -> Iterator[list[Hit] | BrivlSearchError]:
        allow = self.allowed(reader, modality, options.filter)
        vectors = np.stack([job.vector for job in jobs])
        strength = np.array([job.query.share_of_texts for job in jobs], np.float32) if modality == "image" else None
        wanted = options
        if options.rerank_with is not None:
            wanted = replace(options, k=max(options.k, options.rerank_top))
        for job, rows in zip(jobs, nearest(reader, modality, vectors, wanted, allow, strength), strict=True):
            matches: Mapping[RowId, float] = {}
            if match.is_known(self.encoder, job.query, modality):
                sample = self.sample(reader, modality, allow) if confidence_of(self.encoder) is not None else None
                matches = match.of_rows(self.encoder, reader, modality, job.vector, rows, sample)
            found = zip(to_hits(reader, modality, rows, matches), rows, strict=True)
            good = [(hit, one.row) for hit, one in found if match.good_enough(hit, options)]
            hits = [hit for hit, _ in good]
            if options.rerank_with is None:
                yield hits
                continue
            try:
                yield self._reordered(reader, job, hits, [row for _, row in good], options)[: options.k]
            except UsageError as error:  # the query's picture is gone since it was embedded
                yield error

    def _reordered(
        self, reader: IndexReader, job: _Job, hits: Sequence[Hit], rows: Sequence[RowId], options: SearchOptions
    ) -> list[Hit]:
        """Hits, which are at `rows`, in the matcher's order."""
        reranker, top = self.reranker(str(options.rerank_with)), options.rerank_top
        if job.query.single == "text":
            kept = [rerank.kept(reader, reranker.matcher, row) for row in rows[:top]]
            return rerank.reorder(reranker, job.query, hits, top, kept)
        shown = None if job.shown is None else rerank.seen(reader, reranker, job.shown)
        return rerank.reorder(reranker, job.query, hits, top, shown=shown)
