"""What stands behind the routes: one engine, a thread for each tower, threads that search, processes that decode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search import steps
from brivl_search.encoders.base import Encoder, Origin, encode_pictures, spelled, unknown_words
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import BrivlSearchError
from brivl_search.index import IndexReader
from brivl_search.search.engine import Engine
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query
from brivl_search.server.settings import Settings
from brivl_search.server.telemetry import Telemetry
from brivl_search.server.workers.batching import Batcher
from brivl_search.server.workers.decoding import Decoders

Vector = NDArray[np.float32]
Picture = tuple[NDArray[np.uint8], Origin]  # pixels (S, S, 3), and whose they are
NOBODY = Origin("", 0, 0)

_EVERYTHING = SearchOptions()
_SEARCH_BATCH = 64
_LONG = 200  # hits; longer lists do not stand in the way of short ones


@dataclass(frozen=True, eq=False)
class Search:
    """A query whose vector is known. Its k and target are its own."""

    query: Query
    vector: Vector
    options: SearchOptions


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
        self.texts: Batcher[str, Vector] = Batcher(self._encode_texts, "texts", most=settings.batch)
        self.pictures: Batcher[Picture, Vector] = Batcher(self._encode_pictures, "pictures", most=settings.batch)
        self._quick: Batcher[Search, Found] = self._searcher("search")
        self._slow: Batcher[Search, Found] = self._searcher("slow-search")
        self.decoders = Decoders(
            settings.decoders, timeout_s=settings.decode_timeout_s, max_megapixels=settings.max_megapixels
        )
        self._warming: asyncio.Task[None] | None = None
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

    def _searcher(self, name: str) -> Batcher[Search, Found]:
        return Batcher(
            lambda some: self._search(name, some), name, most=_SEARCH_BATCH, alike=lambda search: search.options
        )

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to load the towers; `ready` says when that is done."""
        self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        try:
            await asyncio.to_thread(lambda: self.engine.encoder)
            if self.settings.warm:
                side = self.encoder.pixels.size
                await self.pictures.ask([(np.zeros((side, side, 3), np.uint8), NOBODY)])
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
        slow = options != _EVERYTHING or (search.query.k or 0) > _LONG
        (found,) = await (self._slow if slow else self._quick).ask([search])
        if isinstance(found.hits, BrivlSearchError):
            raise found.hits
        return found.hits, found.reader

    # -- in the workers' threads ---------------------------------------------------------------------------------

    def _encode_texts(self, texts: Sequence[str]) -> Sequence[Vector]:
        start = time.perf_counter()
        different = list(dict.fromkeys(texts))
        vectors = dict(zip(different, self.encoder.encode_texts(different), strict=True))
        self._encoded("texts", len(texts), time.perf_counter() - start)
        return [vectors[text] for text in texts]

    def _encode_pictures(self, pictures: Sequence[Picture]) -> Sequence[Vector]:
        start = time.perf_counter()
        pixels = np.stack([picture for picture, _ in pictures])
        vectors = list(encode_pictures(self.encoder, pixels, [origin for _, origin in pictures]))
        self._encoded("pictures", len(pictures), time.perf_counter() - start)
        return vectors

    def _encoded(self, worker: str, count: int, seconds: float) -> None:
        self.telemetry.batch(worker, count)
        self.telemetry.step("encode", seconds, count)

    def _search(self, name: str, some: Sequence[Search]) -> Sequence[Found]:
        with steps.collect() as seconds:
            answers = self.engine.query_many(
                [one.query for one in some], some[0].options, vectors=[one.vector for one in some]
            )
        for step, spent in seconds.items():
            self.telemetry.step(step, spent, len(some))
        self.telemetry.batch(name, len(some))
        reader = self.engine.reader
        return [Found(answer, reader) for answer in answers]


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
        return self._all(self._service.texts, list(texts))

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
