"""Concurrent requests become one call: while a tower works, what comes in waits, and then goes through it together.

Nothing waits for company: an idle worker takes a lone request at once, so batches are as large as the load makes them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):
    """So much is waiting that it would not be answered in time."""


@dataclass(eq=False)
class _Task(Generic[T, R]):
    items: Sequence[T]
    future: Future[list[R]]
    results: list[R] = field(default_factory=list)  # of its first items

    @property
    def left(self) -> int:
        return len(self.items) - len(self.results)


class Batcher(Generic[T, R]):
    """One thread that owns something and works through what many threads ask of it.

    Args:
        work: items → as many results, in order; called in the thread alone. What it raises, all that asked get.
        name: of the thread.
        most: items in a call of `work`; a longer request goes through it in pieces, between which others have a turn.
        waiting: items that may wait; more are refused.
        alike: two items that may not share a call give different values.

    Attributes:
        most: as given; it may be changed at any time.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        name: str,
        *,
        most: int = 64,
        waiting: int = 4096,
        alike: Callable[[T], object] = lambda item: None,
    ) -> None:
        self._work, self.most, self._limit, self._alike = work, most, waiting, alike
        self._queue: queue.SimpleQueue[_Task[T, R] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that have no result yet."""
        return self._waiting

    def submit(self, items: Sequence[T]) -> Future[list[R]]:
        """A result for each item, in order. Raises Overloaded."""
        future: Future[list[R]] = Future()
        if not items:
            future.set_result([])
            return future
        with self._lock:
            if self._closed or self._waiting + len(items) > self._limit:
                raise Overloaded
            self._waiting += len(items)
        self._queue.put(_Task(items, future))
        return future

    async def ask(self, items: Sequence[T]) -> list[R]:
        """`submit` for coroutines."""
        return await asyncio.wrap_future(self.submit(items))

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        kept: deque[_Task[T, R]] = deque()
        open_ = True
        while open_ or kept:
            if not kept:
                task = self._queue.get()
                if task is None:
                    return
                kept.append(task)
            while open_:
                try:
                    task = self._queue.get_nowait()
                except queue.Empty:
                    break
                if task is None:
                    open_ = False
                else:
                    kept.append(task)
            self._batch(kept)

    def _batch(self, kept: deque[_Task[T, R]]) -> None:
        """Takes the oldest request, and those behind it that may go with it and fit; of a long one, a piece."""
        first = kept.popleft()
        kind = self._alike(first.items[0])
        batch, count = [first], first.left
        for task in list(kept):
            if count + task.left > self.most:
                break
            if self._alike(task.items[0]) == kind:
                batch.append(task)
                count += task.left
                kept.remove(task)
        batch = [task for task in batch if task.results or self._begins(task)]
        items = [item for task in batch for item in task.items[len(task.results) :]][: self.most]
        if not items:
            return
        try:
            results = list(self._work(items))
        except BaseException as error:
            for task in batch:
                self._done(task)
                task.future.set_exception(error)
            return
        at = 0
        for task in batch:
            end = at + task.left
            task.results += results[at:end]
            at = end
            if task.left:
                kept.append(task)  # behind those that wait
            else:
                self._done(task)
                task.future.set_result(task.results)

    def _begins(self, task: _Task[T, R]) -> bool:
        """Whether somebody still waits for it."""
        if task.future.set_running_or_notify_cancel():
            return True
        self._done(task)
        return False

    def _done(self, task: _Task[T, R]) -> None:
        with self._lock:
            self._waiting -= len(task.items)
