"""What stands behind the routes: one engine, a thread for each tower, threads that search, processes that decode.

Short searches of everything go together through one thread. What may take long (filters, exact searches, folding, long
lists, the map) goes through threads that clients share, see `fair`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brivl_search import steps
from brivl_search.encoders.base import (
    Encoder,
    Origin,
    encode_pictures,
    encode_queries,
    has_sides,
    spelled,
    unknown_words,
)
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.memory import give_back
from brivl_search.errors import BrivlSearchError
from brivl_search.index import IndexReader
from brivl_search.search.engine import Engine
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query
from brivl_search.search.rerank import QueryPicture
from brivl_search.server.callers import CLIENT
from brivl_search.server.settings import Settings
from brivl_search.server.telemetry import Telemetry
from brivl_search.server.workers.batching import Batcher
from brivl_search.server.workers.decoding import Decoders
from brivl_search.server.workers.fair import FairPool

R = TypeVar("R")
Vector = NDArray[np.float32]
Picture = tuple[NDArray[np.uint8], Origin]  # pixels (S, S, 3), and whose they are
NOBODY = Origin("", 0, 0)

MOST_ALIKE = 100  # rows folded into a hit that an answer lists
_EVERYTHING = SearchOptions(most_alike=MOST_ALIKE)
_SEARCH_BATCH = 64
_LONG = 200  # hits; longer lists do not stand in the way of short ones
_SLOW_THREADS = 4
# Pictures in one call of a tower on a CPU, which takes as long for each of 8 as for each of 64. What a batch takes at
# its peak stays with the process: 15 MB more than one picture for 8, 360 MB more for 32 (brivl-mini).
_PICTURES = 8
_TIDY_S = 20.0  # between two times that freed memory is given back


@dataclass(frozen=True, eq=False)
class Search:
    """A query whose vector is known. Its k and target are its own."""

    query: Query
    vector: Vector
    options: SearchOptions
    shown: QueryPicture | None = None  # for a matcher


@dataclass(frozen=True)
class Found:
    """Its hits, or what is wrong with it, and the index that answered."""

    hits: list[Hit] | BrivlSearchError
    reader: IndexReader


class Service:
    """Answers for many clients at once. Create it, `start` it, `close` it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.telemetry = Telemetry()
        self.texts: Batcher[str | Caption, Vector] = Batcher(self._encode_texts, "texts", most=settings.batch)
        few = min(settings.batch, _PICTURES)
        self.pictures: Batcher[Picture, Vector] = Batcher(self._encode_pictures, "pictures", most=few)
        self._quick: Batcher[Search, Found] = Batcher(
            lambda some: self._search("search", some), "search", most=_SEARCH_BATCH
        )
        self._slow = FairPool(_SLOW_THREADS, "slow-search")
        self._filtering: dict[object, asyncio.Future[Found]] = {}  # filters that are being evaluated
        self.decoders = Decoders(
            settings.decoders, timeout_s=settings.decode_timeout_s, max_megapixels=settings.max_megapixels
        )
        self._warming: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._asked = 0  # calls of workers
        self.at_start: list[Callable[[], None]] = []  # done before the first request
        self._trouble: BaseException | None = None
        self.ready = False
        for name, worker in (
            ("texts", self.texts), ("pictures", self.pictures), ("search", self._quick), ("slow-search", self._slow)
        ):  # fmt: skip
            self.telemetry.watch(name, lambda worker=worker: worker.waiting)  # type: ignore[misc]
        for modality in ("image", "text"):
            self.telemetry.watch_index(
                modality,
                lambda modality=modality: self.reader.info.of(modality).rows,  # type: ignore[misc]
                lambda modality=modality: self.reader.info.of(modality).bytes,  # type: ignore[misc]
            )
        self.telemetry.watch_generation(lambda: self.reader.info.generation)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to load the towers; `ready` says when that is done."""
        for job in self.at_start:
            await asyncio.to_thread(job)
        self._warming = asyncio.create_task(self._warm())
        self._tidying = asyncio.create_task(self._tidy())

    async def _tidy(self) -> None:
        """Gives memory back that bodies, pictures and records took and that allocators keep for themselves."""
        before = 0
        while True:
            await asyncio.sleep(_TIDY_S)
            if self._asked != before:
                before = self._asked
                await asyncio.to_thread(give_back)

    async def _warm(self) -> None:
        try:
            await asyncio.to_thread(lambda: self.engine.encoder)
            on_cpu = getattr(getattr(self.encoder, "device", None), "type", "cpu") == "cpu"
            if not on_cpu:
                self.pictures.most = self.settings.batch
            if self.settings.warm:  # with as many as will ever go together: memory is at its peak from the beginning
                side = self.encoder.pixels.size
                await self.pictures.ask([(np.zeros((side, side, 3), np.uint8), NOBODY)] * self.pictures.most)
                await asyncio.to_thread(self.decoders.start)
            await self.texts.ask(["warm"])
            self.ready = True
        except Exception as error:
            self._trouble = error

    def check_ready(self) -> None:
        """Raises what keeps the server from answering. A generation of another encoder is such a thing."""
        if self._trouble is not None:
            raise self._trouble
        self.engine.refresh()

    async def close(self) -> None:
        """Answer what waits, and end threads and processes."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)
        for worker in (self.texts, self.pictures, self._quick, self._slow):
            await asyncio.to_thread(worker.close)
        await asyncio.to_thread(self.decoders.close)

    # -- what routes ask for -------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        return self.engine.encoder

    @property
    def reader(self) -> IndexReader:
        """The generation that answers now."""
        return self.engine.reader

    async def fresh(self) -> IndexReader:
        """The generation published last. Raises IndexIncompatibleError."""
        await asyncio.to_thread(self.engine.refresh)
        return self.engine.reader

    async def search(self, search: Search) -> tuple[list[Hit], IndexReader]:
        """Hits, and the index they are of. Raises BrivlSearchError."""
        options = search.options
        if options == _EVERYTHING and (search.query.k or 0) <= _LONG:
            (found,) = await self._quick.ask([search])
        elif options.filter:
            found = await self._filtered(search)
        else:
            found = await self._alone(search)
        if isinstance(found.hits, BrivlSearchError):
            raise found.hits
        return found.hits, found.reader

    def matcher(self) -> dict[str, Any] | None:
        """`schemas.status.MatcherAnswer`; None: this server has none."""
        name = self.settings.rerank_with
        if name is None:
            return None
        found = self.engine.reranker(name).matcher
        return {"name": found.name, "fingerprint": found.fingerprint, "top": self.settings.rerank_top}

    async def slowly(self, job: Callable[[], R]) -> R:
        """Something that may take long, in a thread of those that clients share. Raises Overloaded."""
        return await self._slow.run(CLIENT.get(), job)

    async def _alone(self, search: Search) -> Found:
        (found,) = await self.slowly(partial(self._search, "slow-search", [search]))
        return found

    async def _filtered(self, search: Search) -> Found:
        """A filter that is asked for several times at once is evaluated once; who waits for it holds no thread."""
        await self.fresh()
        key = (self.reader, search.query.target, search.query.single, search.options.filter)
        while (other := self._filtering.get(key)) is not None:
            await asyncio.wait([other])
        if self.engine.remembers(search.query, search.options):
            return await self._alone(search)
        mine = self._filtering[key] = asyncio.ensure_future(self._alone(search))
        try:
            return await mine
        finally:
            del self._filtering[key]

    # -- in the workers' threads ---------------------------------------------------------------------------------

    def _encode_texts(self, texts: Sequence[str | Caption]) -> Sequence[Vector]:
        start = time.perf_counter()
        different = list(dict.fromkeys(texts))
        queries = [one for one in different if isinstance(one, str)]
        captions = [one for one in different if isinstance(one, Caption)]
        vectors: dict[str | Caption, Vector] = {}
        if queries:
            vectors |= zip(queries, encode_queries(self.encoder, queries), strict=True)
        if captions:
            vectors |= zip(captions, self.encoder.encode_texts([one.text for one in captions]), strict=True)
        self._encoded("texts", len(texts), time.perf_counter() - start)
        return [vectors[text] for text in texts]

    def _encode_pictures(self, pictures: Sequence[Picture]) -> Sequence[Vector]:
        start = time.perf_counter()
        pixels = np.stack([picture for picture, _ in pictures])
        vectors = list(encode_pictures(self.encoder, pixels, [origin for _, origin in pictures]))
        self._encoded("pictures", len(pictures), time.perf_counter() - start)
        return vectors

    def _encoded(self, worker: str, count: int, seconds: float) -> None:
        self._asked += 1
        self.telemetry.batch(worker, count)
        self.telemetry.step("encode", seconds, count)

    def _search(self, name: str, some: Sequence[Search]) -> Sequence[Found]:
        with steps.collect() as seconds:
            answers = self.engine.query_many(
                [one.query for one in some],
                some[0].options,
                vectors=[one.vector for one in some],
                shown=[one.shown for one in some],
            )
        for step, spent in seconds.items():
            self.telemetry.step(step, spent, len(some))
        self._asked += 1
        self.telemetry.batch(name, len(some))
        reader = self.engine.reader
        return [Found(answer, reader) for answer in answers]


@dataclass(frozen=True)
class Caption:
    """A text for the text tower that is not searched with."""

    text: str


class Towers:
    """The service's towers as an `Encoder`: what a build embeds goes through the threads of queries, between them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        encoder = service.encoder
        self.name, self.dim, self.fingerprint = encoder.name, encoder.dim, encoder.fingerprint
        self.pixels: Any = encoder.pixels
        self.calibration: Calibration | None = encoder.calibration

    def encode_images(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return self._all(self._service.pictures, [(picture, NOBODY) for picture in pixels])

    def encode_pictures(self, pixels: NDArray[Any], origins: Sequence[Origin]) -> NDArray[Any]:
        return self._all(self._service.pictures, list(zip(pixels, origins, strict=True)))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[Any]:
        return self._all(self._service.texts, list(map(Caption, texts)))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[Any]:
        return self._all(self._service.texts, list(texts))

    @property
    def has_sides(self) -> bool:
        return has_sides(self._service.encoder)

    def _all(self, worker: Batcher[Any, Vector], items: list[Any]) -> NDArray[np.float32]:
        """A few at a time, so that queries get in between."""
        done: list[Vector] = []
        for at in range(0, len(items), 16):
            future: Future[list[Vector]] = worker.submit(items[at : at + 16])
            done += future.result()
        return np.stack(done) if done else np.zeros((0, self.dim), np.float32)

    def warm_up(self) -> None:
        pass

    def cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._service.encoder.cut_tokens(texts)

    def unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        return unknown_words(self._service.encoder, texts)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        return spelled(self._service.encoder, texts)


def options_for(options: SearchOptions) -> SearchOptions:
    """Without k, which is the query's own: so that queries for different numbers of hits go together."""
    return replace(options, k=_EVERYTHING.k)
