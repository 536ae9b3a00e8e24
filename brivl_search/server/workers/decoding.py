"""Pictures are decoded in processes that may crash, hang or run out of memory without harm to the server.

Unlike `corpus.decode_pool`, which streams whole folders through a pool of its own, this one stays and answers single
requests. A process that dies takes only the picture with it that killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.decode_single import decode_content, indexed_thumbnail, nothing
from brivl_search.corpus.decode_worker import Decoder, settle_in
from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.errors import ImageError

T = TypeVar("T")


@dataclass(frozen=True)
class Pixels:
    """A decoded picture.

    Attributes:
        pixels: uint8 (size, size, 3).
        width, height: of the original.
        sha256: of the file.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    sha256: str


class Decoders:
    """A pool of decoding processes.

    Args:
        processes: how many.
        timeout_s: for a picture.
        max_megapixels: refuse larger pictures.
        decoder: replaces `images.decode`, with the same arguments; importable by name.
    """

    def __init__(self, processes: int, *, timeout_s: float, max_megapixels: float, decoder: Decoder = decode) -> None:
        self._processes, self._timeout_s, self._max_megapixels = processes, timeout_s, max_megapixels
        self._memory = (512 << 20) + round(32e6 * max_megapixels)  # see `decode_pool`
        self._decoder = decoder
        self._pool: Any = None
        self._waiting: set[Future[Any]] = set()  # of that pool
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start a process now rather than with the first picture."""
        self._run(nothing)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._end(self._pool)

    def _end(self, pool: Any) -> None:
        """End a pool, unless another request has done so: its successor must not suffer for it."""
        with self._lock:
            if pool is None or self._pool is not pool:
                return
            self._pool, waiting = None, self._waiting
            self._waiting = set()
        pool.stop()
        pool.join()
        for future in tuple(waiting):  # pebble forgets those that no process had begun
            with contextlib.suppress(InvalidStateError):
                future.set_exception(BrokenProcessPool("the pool was ended"))

    async def pixels(self, data: bytes, spec: PixelSpec) -> Pixels:
        """The content of a file → pixels. Raises ImageError."""
        raw, width, height, sha256 = await self._ask(
            decode_content, self._decoder, data, spec, self._max_megapixels, self._memory
        )
        pixels = np.frombuffer(raw, np.uint8).reshape(spec.size, spec.size, 3)
        return Pixels(pixels, width, height, sha256)

    async def thumbnail(self, path: str, side: int, sha256: str | None, max_bytes: int) -> bytes:
        """A JPEG of an indexed file of which the longer side has at most `side` pixels.

        Raises:
            ChangedError: the file's content has another hash than `sha256` (None: its content was never known).
            ImageError: it cannot be read.
        """
        return await self._ask(indexed_thumbnail, path, side, sha256, max_bytes, self._memory)

    async def _ask(self, function: Callable[..., T], *arguments: Any) -> T:
        last: Exception = ImageError("decoder crashed")
        for _ in range(3):
            pool, future = self._run(function, *arguments)
            try:
                return await asyncio.wrap_future(future)
            except BrokenProcessPool as error:  # the pool failed, the picture may be innocent
                await asyncio.to_thread(self._end, pool)
                last = error
            except TimeoutError:
                raise ImageError("decoding timed out", f"after {self._timeout_s:g} s") from None
            except ImageError:
                raise
            except MemoryError as error:
                raise ImageError("out of memory", str(error)) from None
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():  # the client has gone
                    raise
                last = ImageError("decoder crashed", str(error))  # another request ended the pool under this one
            except Exception as error:
                code = getattr(error, "exitcode", None)
                if code is None:
                    raise
                raise ImageError("decoder crashed", _how(code)) from None
        raise ImageError("decoder crashed", str(last))

    def _run(self, function: Callable[..., T], *arguments: Any) -> tuple[Any, Future[T]]:
        with self._lock:
            if self._pool is None:
                self._pool = _start(self._processes)
            pool, waiting = self._pool, self._waiting
            try:
                future: Future[T] = pool.schedule(function, args=arguments, timeout=self._timeout_s)
            except RuntimeError as error:  # it broke down since
                future = Future()
                future.set_exception(BrokenProcessPool(str(error)))
            waiting.add(future)
        future.add_done_callback(waiting.discard)
        return pool, future


def _start(processes: int) -> Any:
    from pebble import ProcessPool

    from brivl_search.corpus.light_spawn import light_context

    return ProcessPool(max_workers=processes, initializer=settle_in, initargs=(0,), context=light_context())


def _how(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
