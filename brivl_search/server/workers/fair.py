"""Threads for what may take long: filters that read every record, exact searches, folding, the map.

A slow request costs the client that sent it. Each client has a queue of its own. A thread that is free takes the oldest
job of the client that has the fewest running; and no client has all threads, so that another one always finds one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from brivl_search.server.workers.batching import Overloaded

R = TypeVar("R")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class FairPool:
    """Threads that clients share.

    Args:
        threads: at least 2.
        name: of the threads.
        waiting: jobs of all clients that may wait or run; more are refused.
    """

    def __init__(self, threads: int, name: str, *, waiting: int = 512) -> None:
        self._limit, self._most_of_one = waiting, max(1, threads - 1)
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()  # whoever was served last stands last
        self._running: dict[str, int] = {}
        self._count = 0
        self._closed = False
        self._change = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that have no result yet."""
        return self._count

    def submit(self, client: str, job: Callable[[], R]) -> Future[R]:
        """The job's result. Raises Overloaded."""
        future: Future[R] = Future()
        with self._change:
            if self._closed or self._count >= self._limit:
                raise Overloaded
            self._count += 1
            self._queues.setdefault(client, deque()).append((job, future))
            self._change.notify()
        return future

    async def run(self, client: str, job: Callable[[], R]) -> R:
        """`submit` for coroutines."""
        return await asyncio.wrap_future(self.submit(client, job))

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                while (client := self._next()) is None:
                    if self._closed and not self._queues:
                        return
                    self._change.wait()
                job, future = self._take(client)
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        result = job()
                    except BaseException as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
            finally:
                del job, future
                self._end(client)

    def _next(self) -> str | None:
        """Whose turn it is; None if all that wait have as many threads as they may."""
        able = [client for client in self._queues if self._running.get(client, 0) < self._most_of_one]
        return min(able, key=lambda client: self._running.get(client, 0), default=None)

    def _take(self, client: str) -> _Job:
        queue = self._queues.pop(client)
        taken = queue.popleft()
        if queue:
            self._queues[client] = queue
        self._running[client] = self._running.get(client, 0) + 1
        return taken

    def _end(self, client: str) -> None:
        with self._change:
            self._count -= 1
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            self._change.notify_all()
