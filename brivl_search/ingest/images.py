"""The image side of a build: pictures are decoded, embedded once for each content, and become rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.embedding.batches import Embedded, encode_decoded, first_of_each, in_batches, look_ahead
from brivl_search.encoders.base import Encoder, expect
from brivl_search.index import IndexWriter, Item, Origin
from brivl_search.ingest.forget import PASSING_REASONS
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.regions import Keeper
from brivl_search.ingest.report import BuildReport, Progress


def by_limit(files: Sequence[ImageFile], limit: Callable[[str], float]) -> Iterator[tuple[float, list[ImageFile]]]:
    """The files of each limit, the lowest first; `limit` is, of a path, the most megapixels that are decoded."""
    for most in sorted({limit(file.path) for file in files}):
        yield most, [file for file in files if limit(file.path) == most]


class Embedder(Protocol):
    """Who decodes and embeds the pictures of a build, if it is not this process: the hosts of a cluster, say."""

    def embed(
        self,
        files: Sequence[ImageFile],
        limit: Callable[[str], float],
        known: Callable[[ImageFile], tuple[str, ...]],
        progress: Progress,
    ) -> Iterator[Embedded]:
        """Every file once, in any order, without its pixels.

        A vector comes with the first of the files that have its content, at the latest; it may be None for the others,
        for a file that is skipped (`decoded.reason`), and for one that is `decoded.known`.

        Args:
            files: those that are new or changed.
            limit: of a path, the most megapixels that are decoded.
            known: of a file, hashes of contents that need no vector.
            progress: told what is going on.
        """
        ...


class ImageStage:
    """Stages the pictures of a build as rows.

    Args:
        writer, encoder, progress, report, options: of the build.
        indexed: the images that the index will hold; those that are skipped leave it.
        named: of these, the files that were added by name.
        limit: of a path, the most megapixels that are decoded.
        flush: called between batches.
        keeper: keeps what a matcher reads of pictures; None: nobody does.
        embedder: decodes and embeds; None: this process does.

    Attributes:
        contents: of the images that were put into the index.
    """

    def __init__(
        self,
        writer: IndexWriter,
        encoder: Encoder,
        progress: Progress,
        report: BuildReport,
        options: BuildOptions,
        *,
        indexed: set[str],
        named: Container[str],
        limit: Callable[[str], float],
        flush: Callable[[], None],
        keeper: Keeper | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.writer, self.encoder, self.progress = writer, encoder, progress
        self.report, self.options = report, options
        self.indexed, self.named, self.limit, self.flush = indexed, named, limit, flush
        self.keeper, self.embedder = keeper, embedder
        self.vectors: dict[str, NDArray[np.float32]] = {}  # of the present batch, by content, where another embeds
        self.contents: set[str] = set()
        self.fresh: set[str] = set()  # contents of the present batch that the encoder has to see
        self.started: float | None = None

    def changed(self, files: Sequence[ImageFile]) -> list[ImageFile]:
        """The files that the index does not know by size and time."""
        todo: list[ImageFile] = []
        for file in files:
            state = self.writer.known("image", file.path)
            if state is not None and (state.size, state.mtime_ns) == (file.size, file.mtime_ns):
                self.report.unchanged += 1
                if file.path in self.named and state.origin not in ("file", "import"):
                    self._put(Item(file.path, state.content, file.size, file.mtime_ns, self._known(file.path), "file"))
            else:
                todo.append(file)
        return todo

    def stage(self, todo: Sequence[ImageFile]) -> None:
        """Decodes and embeds files; each content is embedded once."""
        if not todo:
            return
        if self.embedder is None:
            expect(self.encoder, len(todo))
        else:
            self.started = time.perf_counter()  # with the start of its workers
        self.progress.phase("images", len(todo))
        for batch in in_batches(self._decoded(todo), self.options.batch_size, self._is_fresh):
            self._embed(batch)
        self.writer.flush()
        if self.started is not None:
            self.report.embed_seconds = time.perf_counter() - self.started

    def fill_regions(self, files: Sequence[ImageFile]) -> None:
        """Has the keeper read those of the indexed files that it has not read yet."""
        if self.keeper is not None:
            there = [file for file in files if file.path in self.indexed]
            self.report.regions = self.keeper.fill(
                there, self._whole, self.options.batch_size, self.progress, self.flush
            )

    def _decoded(self, todo: Sequence[ImageFile]) -> Iterator[Decoded]:
        for decoded in self._whole(todo, self._known_hashes) if self.embedder is None else self._elsewhere(todo):
            if decoded.reason:
                self._skip(decoded)
            else:
                yield decoded

    def _elsewhere(self, todo: Sequence[ImageFile]) -> Iterator[Decoded]:
        assert self.embedder is not None
        for one in self.embedder.embed(todo, self.limit, self._known_hashes, self.progress):
            if one.vector is not None:
                self.vectors[one.decoded.sha256] = one.vector
            yield one.decoded

    def _whole(
        self, todo: Sequence[ImageFile], known: Callable[[ImageFile], tuple[str, ...]] | None = None
    ) -> Iterator[Decoded]:
        """Every file, with what is wrong with it or its pixels; without those where its content is `known`."""
        for limit, files in by_limit(todo, self.limit):
            yield from decode_all(
                files,
                self.encoder.pixels,
                workers=default_workers() if self.options.workers is None else self.options.workers,
                max_megapixels=limit,
                timeout_s=self.options.decode_timeout_s,
                ahead=look_ahead(self.options.batch_size),
                known_hashes=known,
            )

    def _is_fresh(self, one: Decoded) -> bool:
        if one.known or one.sha256 in self.fresh or self.writer.has_vector("image", one.sha256):
            return False
        self.fresh.add(one.sha256)
        return True

    def _known_hashes(self, file: ImageFile) -> tuple[str, ...]:
        state = self.writer.known("image", file.path)
        return (state.content,) if state is not None and state.size == file.size else ()

    def _embed(self, batch: Sequence[Decoded]) -> None:
        """Embeds each fresh content of a batch once and stages all of the batch."""
        first = first_of_each(batch, self.fresh)
        if first:
            self.writer.stage_vectors("image", list(first), self._encode(list(first.values())))
        for one in batch:
            file = one.file
            origin: Origin = "file" if file.path in self.named else "scan"
            state = self.writer.known("image", file.path)
            if imported := state is not None and state.origin == "import":
                origin = "import"  # what it was given stays, whatever becomes of the picture
            self._put(Item(file.path, one.sha256, file.size, file.mtime_ns, self._record(one, imported), origin))
        self.report.embedded += len(first)
        self.report.reused += len(batch) - len(first)
        self.progress.advance(len(batch))
        self.fresh.clear()
        self.vectors.clear()
        self.flush()

    def _encode(self, pictures: Sequence[Decoded]) -> NDArray[np.float32]:
        if self.embedder is not None:
            return np.stack([self.vectors[one.sha256] for one in pictures])
        if self.started is None:
            self.progress.note("loading the encoder")
            self.encoder.warm_up()  # start-up, and not needed where nothing is new
            self.progress.note("images")
            self.started = time.perf_counter()
        return encode_decoded(self.encoder, pictures) if self.keeper is None else self.keeper.encode(pictures)

    def _put(self, item: Item) -> None:
        self.contents.add(item.content)
        self.writer.put("image", item)

    def _known(self, path: str) -> dict[str, object]:
        return self.writer.record("image", path) or {"path": path}

    def _record(self, one: Decoded, imported: bool) -> dict[str, object]:
        """What users see of an image; one that was not decoded, because its content is known, keeps what it had."""
        if one.known and (before := self.writer.record("image", one.file.path)) is not None:
            return before
        record: dict[str, object] = {"path": one.file.path, "width": one.width, "height": one.height}
        if imported:
            record = {**self._known(one.file.path), **record}
            record.pop("phash", None)
        return record | ({"taken": one.taken} if one.taken else {}) | ({"phash": one.look} if one.look else {})

    def _skip(self, decoded: Decoded) -> None:
        path = decoded.file.path
        self.report.skipped.append(Skipped(path, decoded.reason, decoded.detail))
        self.progress.advance(1)
        if self.writer.known("image", path) is None:
            self.indexed.discard(path)
        elif decoded.reason in PASSING_REASONS:
            self.report.kept_unreadable += 1
        else:
            self.indexed.discard(path)
            self.writer.remove("image", path)
