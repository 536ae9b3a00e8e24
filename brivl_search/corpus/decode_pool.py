"""Many files become pixels, in worker processes that may crash or hang without harm, in the order they came.

Files travel to the workers in chunks; a chunk's pixels come back as one buffer. A chunk that kills its worker or does
not end in time is tried again file by file in a process of its own, so that only the guilty file is skipped.

Start-up is about a third of a second and overlaps the caller's work, so even small folders get the protection.
"""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.cpus import usable_cpus
from brivl_search.corpus.decode_worker import Decoder, Job, Outcome, Task, decode_chunk, decode_one, settle_in
from brivl_search.corpus.images import MAX_FILE_BYTES, MAX_MEGAPIXELS, PixelSpec, decode
from brivl_search.corpus.walk import ImageFile
from brivl_search.errors import CorpusError

_MAX_CHUNK = 16
_MAX_BREAKDOWNS = 3

Packed = tuple[list[Outcome], bytearray]
KnownHashes = Callable[[ImageFile], Collection[str]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one file.

    Attributes:
        file: the file.
        sha256: of its content, hex; empty if it could not be read.
        pixels: uint8 (size, size, 3), RGB; None for a skipped file and for one whose content was `known`. Arrays of
            one chunk share memory: copy one that is to be kept for long.
        width: of the original, after EXIF orientation; 0 without pixels.
        height: likewise.
        known: the content is one of those `known_hashes` named, so it was not decoded.
        reason: why the file is skipped, short and countable; empty if it is not.
        detail: what exactly was met.
        taken: when, by EXIF, as `DecodedImage.taken`; empty without pixels.
        look: perceptual hash, as `DecodedImage.look`; empty without pixels.
    """

    file: ImageFile
    sha256: str
    pixels: NDArray[np.uint8] | None
    width: int = 0
    height: int = 0
    known: bool = False
    reason: str = ""
    detail: str = ""
    taken: str = ""
    look: str = ""


def decode_all(
    files: Iterable[ImageFile],
    spec: PixelSpec,
    *,
    workers: int,
    max_megapixels: float = MAX_MEGAPIXELS,
    timeout_s: float = 60.0,
    max_bytes: int = MAX_FILE_BYTES,
    ahead: int = 256,
    known_hashes: KnownHashes | None = None,
    decoder: Decoder = decode,
) -> Iterator[Decoded]:
    """Decode files in order, a bounded number of them ahead of the caller.

    Closing the iterator (or losing it) ends the workers. They ignore Ctrl-C, and end by themselves if this process
    is killed.

    Args:
        files: consumed lazily, from the caller's thread.
        spec: what the pixels shall look like.
        workers: processes; 0 decodes in this process, without protection from files that crash or hang a decoder.
        max_megapixels: refuse larger images before decoding them.
        timeout_s: limit for a chunk, and for each of its files when they are tried again alone.
        max_bytes: refuse larger files before reading them.
        ahead: how many files may be under way or waiting for the caller; twice an encoder batch keeps both busy.
        known_hashes: for a file, the SHA-256 of contents whose pixels are not needed (say, what the index already
            holds of the same size); a file with one of them is hashed and not decoded.
        decoder: replaces `images.decode`, with the same arguments; must be importable by name in a new process.

    Raises:
        CorpusError: worker processes cannot be started, or die again and again without a file to blame.
    """
    if workers < 0 or timeout_s <= 0 or ahead < 1:
        raise ValueError(f"workers = {workers}, timeout_s = {timeout_s}, ahead = {ahead}")
    if workers and getattr(decoder, "__module__", None) == "__main__":
        raise ValueError("the decoder must come from a module that a new process can import, not from __main__")
    alarm_s, memory = (_alarm_s(timeout_s), _memory(max_megapixels)) if workers else (0, 0)
    job = Job(spec, max_megapixels, max_bytes, alarm_s, memory, decoder)
    known = known_hashes or (lambda file: ())
    if workers == 0:
        return _decode_here(files, job, known)
    size = _MAX_CHUNK
    if isinstance(files, Sized):
        size = max(1, min(size, -(-len(files) // (2 * workers))))
        workers = max(1, min(workers, len(files)))
    window = max(2 * workers, ahead // size)
    return _Run(job, workers, timeout_s).decode(_chunks(files, size, known), window)


def _decode_here(files: Iterable[ImageFile], job: Job, known: KnownHashes) -> Iterator[Decoded]:
    for file in files:
        outcome, image = decode_one(file.path, frozenset(known(file)), job, file.place)
        yield _decoded(file, outcome, None if image is None else image.pixels)


def _decoded(file: ImageFile, outcome: Outcome, pixels: NDArray[np.uint8] | None) -> Decoded:
    it = outcome
    return Decoded(file, it.sha256, pixels, it.width, it.height, it.known, it.reason, it.detail, it.taken, it.look)


@dataclass
class _Chunk:
    files: list[ImageFile]
    tasks: list[Task]
    future: Future[Packed] | None = None

    def unpack(self, packed: Packed, size: int) -> Iterator[Decoded]:
        outcomes, buffer = packed
        pixels = iter(np.frombuffer(buffer, dtype=np.uint8).reshape(-1, size, size, 3))
        for file, outcome in zip(self.files, outcomes, strict=True):
            has_pixels = not outcome.reason and not outcome.known
            yield _decoded(file, outcome, next(pixels) if has_pixels else None)


def _chunks(files: Iterable[ImageFile], size: int, known: KnownHashes) -> Iterator[_Chunk]:
    iterator = iter(files)
    while chunk := list(itertools.islice(iterator, size)):
        yield _Chunk(chunk, [(file.path, tuple(known(file)), file.place) for file in chunk])


class _Run:
    """One call of `decode_all`: the pool, the chunks under way, and what to do when something breaks."""

    def __init__(self, job: Job, workers: int, timeout_s: float) -> None:
        self.job = job
        self.workers = workers
        self.timeout_s = timeout_s
        self.pool: Any = None
        self.alone: Any = None
        self.pending: deque[_Chunk] = deque()
        self.breakdowns = 0

    def decode(self, chunks: Iterator[_Chunk], window: int) -> Iterator[Decoded]:
        try:
            while True:
                for chunk in itertools.islice(chunks, window - len(self.pending)):
                    self._submit(chunk)
                    self.pending.append(chunk)
                if not self.pending:
                    return
                packed = self._result(self.pending[0])
                if packed is not None:
                    self.breakdowns = 0
                    yield from self.pending.popleft().unpack(packed, self.job.spec.size)
        finally:
            _end(self.pool)
            _end(self.alone)

    def _submit(self, chunk: _Chunk) -> None:
        if self.pool is None:
            self.pool = _start(self.workers)
        chunk.future = _schedule(self.pool, chunk.tasks, self.job, self.timeout_s)

    def _result(self, chunk: _Chunk) -> Packed | None:
        """The result of the oldest chunk, or None after a breakdown of the pool: then ask again."""
        future = chunk.future
        assert future is not None
        try:
            # The pool keeps the time of what runs. This limit only ends a wait for what will never come: the
            # chunk is the oldest, so by then it has run, or a dying worker took it along.
            return future.result(timeout=5 * self.timeout_s + 60)
        except (BrokenProcessPool, CancelledError):
            self._renew()
            return None
        except Exception as error:
            if not future.done():
                self._renew()
                return None
            if not isinstance(error, TimeoutError):
                # The worker may have died holding a lock of the pool's pipe: go on with new locks.
                self._renew(count=False)
            return self._one_by_one(chunk)

    def _renew(self, *, count: bool = True) -> None:
        """Replace the pool and hand it everything that has no outcome yet."""
        self.breakdowns += count
        if self.breakdowns > _MAX_BREAKDOWNS:
            raise CorpusError("the processes that decode images die at once: decode in one process (workers = 0)")
        _end(self.pool)
        self.pool = None
        for chunk in self.pending:
            if chunk.future is None or not chunk.future.done() or _is_breakdown(chunk.future):
                self._submit(chunk)

    def _one_by_one(self, chunk: _Chunk) -> Packed:
        outcomes: list[Outcome] = []
        pixels = bytearray()
        for task in chunk.tasks:
            more, buffer = self._try_alone(task)
            outcomes += more
            pixels += buffer
        return outcomes, pixels

    def _try_alone(self, task: Task) -> Packed:
        for _ in range(_MAX_BREAKDOWNS):
            if self.alone is None:
                self.alone = _start(1)
            future = _schedule(self.alone, [task], self.job, self.timeout_s)
            try:
                return future.result(timeout=2 * self.timeout_s + 60)
            except Exception as error:
                blamed = future.done() and not _is_breakdown(future)
                if not blamed or not isinstance(error, TimeoutError):
                    _end(self.alone)
                    self.alone = None
                if blamed:
                    return [self._verdict(error)], bytearray()
        raise CorpusError("the processes that decode images die at once: decode in one process (workers = 0)")

    def _verdict(self, error: Exception) -> Outcome:
        if isinstance(error, TimeoutError):
            return Outcome(reason="decoding timed out", detail=f"after {self.timeout_s:g} s")
        exit_code = getattr(error, "exitcode", None)
        if exit_code is None:
            return Outcome(reason="decoder crashed", detail=f"{type(error).__name__}: {error}"[:200])
        if exit_code < 0:
            return Outcome(reason="decoder crashed", detail=_signal_name(-exit_code))
        return Outcome(reason="decoder crashed", detail=f"exit code {exit_code}")


def _alarm_s(timeout_s: float) -> int:
    """When the system ends a worker by itself: after the pool would have."""
    return int(1.5 * timeout_s) + 10


def _memory(max_megapixels: float) -> int:
    """What a worker may take: the hungriest decoder (JPEG 2000 with transparency) needs 25 bytes a pixel."""
    return (512 << 20) + round(32e6 * max_megapixels)


def _start(workers: int) -> Any:
    from pebble import ProcessPool

    from brivl_search.corpus.light_spawn import light_context

    return ProcessPool(max_workers=workers, initializer=settle_in, context=light_context())


def _end(pool: Any) -> None:
    """End a pool and its processes now, whatever they are doing."""
    if pool is not None:
        pool.stop()
        pool.join()


def _schedule(pool: Any, tasks: list[Task], job: Job, timeout_s: float) -> Future[Packed]:
    try:
        return cast("Future[Packed]", pool.schedule(decode_chunk, args=(tasks, job), timeout=timeout_s))
    except RuntimeError as error:  # the pool broke down since
        failed: Future[Packed] = Future()
        failed.set_exception(BrokenProcessPool(str(error)))
        return failed


def _is_breakdown(future: Future[Packed]) -> bool:
    """Whether a finished future says that the pool failed, and nothing about its files."""
    return future.cancelled() or isinstance(future.exception(), BrokenProcessPool)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def default_workers() -> int:
    """Processes worth starting here: the CPUs this process may use, at most 16."""
    return min(16, usable_cpus())
