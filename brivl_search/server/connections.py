"""Connections that send nothing, or half a request, or read no answer: each has a deadline, and there is a cap on all.

uvicorn knows a deadline for idle connections alone. `watched` adds the others to its protocol:

    head      the first byte of a request to the end of its headers; a new connection counts from its beginning
    answer    no byte of an answer is taken

Where more connections are open than the cap allows, the ones that have waited longest go first: those without whole
headers, then those whose body is coming, then those that idle between two requests. One that is being answered is never
dropped for another. Deadlines of bodies belong to the application, which can answer them: see `bodies`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

_LOOK_S = 0.5  # between two looks at all connections
_SHARE = 20  # of the cap, one in so many is dropped at once where the cap is met: sorting has its price
_TOLD_S = 60.0  # between two lines in the log
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

log = logging.getLogger("brivl_search.server")


@dataclass(frozen=True)
class Patience:
    """What a connection may take.

    Attributes:
        connections: open at once.
        head_s: seconds from the first byte of a request to the end of its headers.
        answer_s: seconds without a byte of an answer taken.
        head_bytes: of the headers of a request.
    """

    connections: int = 1000
    head_s: float = 10.0
    answer_s: float = 60.0
    head_bytes: int = 64 << 10


def most_connections(wanted: int) -> int:
    """How many connections fit beside the files of an index: half of what the system lets the process open at most."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft // 2))


class Connections:
    """All connections of a server, and the look at them that comes again and again."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._all: set[Any] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._told = -_TOLD_S
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, one: Any) -> bool:
        """Whether there is room for it; room is made, at the cost of those that keep the server waiting."""
        if len(self._all) >= self.patience.connections and not self._make_room():
            return False
        self._all.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        return True

    def remove(self, one: Any) -> None:
        self._all.discard(one)

    def _make_room(self) -> bool:
        waiting = [(one.stage(), one.since, number, one) for number, one in enumerate(self._all)]
        waiting = sorted(place for place in waiting if place[0] < _ANSWERED)
        waiting = waiting[: max(1, self.patience.connections // _SHARE)]
        for *_, one in waiting:
            self._drop(one)
        self.dropped += len(waiting)
        if (now := time.monotonic()) - self._told > _TOLD_S:
            self._told = now
            log.warning(
                "%d connections are open, the most there may be: %s",
                self.patience.connections,
                "the oldest of those that send nothing are dropped" if waiting else "new ones are refused",
            )
        return bool(waiting)

    def _drop(self, one: Any) -> None:
        self._all.discard(one)
        one.transport.abort()

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for one in list(self._all):
            one.look(now)
        if self._all:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)


# How far the request of a connection is, in the order in which connections are dropped.
_HEAD, _BODY, _IDLE, _ANSWERED = 0, 1, 2, 3


def watched(base: type[Any], connections: Connections) -> type[Any]:
    """uvicorn's protocol `base` with deadlines, its connections counted in `connections`."""
    patience = connections.patience

    class Watched(base):  # type: ignore[misc]
        """A connection.

        Attributes:
            since: when it began to wait for what comes next, in seconds of the monotonic clock.
        """

        since = 0.0
        _seen = 0  # bytes of the headers that have come
        _begun = False  # the first byte of the next request has come
        _known: Any = None  # the request whose headers were the last to be whole
        _left = 0  # bytes of answers that the client has not taken
        _stuck = 0.0  # since when it takes none

        def connection_made(self, transport: Any) -> None:
            self.since = time.monotonic()
            super().connection_made(transport)
            if not connections.add(self):
                transport.write(_BUSY)
                transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.remove(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            waits = self.stage() in (_HEAD, _IDLE)
            if waits and not self._begun:
                self._begun, self.since, self._seen = True, time.monotonic(), 0
            self._seen += len(data)
            super().data_received(data)
            if self.cycle is not self._known:
                self._known, self._begun, self._seen = self.cycle, False, 0
                self.since = time.monotonic()
            elif waits and self._seen > patience.head_bytes and not self._rests():
                self._refuse(_LARGE)

        def stage(self) -> int:
            """Where its request is: its headers are not whole, its body is not, there is none, it is being answered."""
            if self.cycle is None or self._begun:
                return _HEAD
            if self.cycle.response_complete:
                return _IDLE
            return _BODY if self.cycle.more_body else _ANSWERED

        def look(self, now: float) -> None:
            """Closes it if a deadline has passed."""
            left = self.transport.get_write_buffer_size()
            if not left or left != self._left:
                self._left, self._stuck = left, now
            elif now - self._stuck > patience.answer_s:
                connections._drop(self)
                return
            if self.stage() == _HEAD and now - self.since > patience.head_s:  # those that idle: uvicorn's own deadline
                self._refuse(_SLOW)

        def _refuse(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                if not self._rests():
                    self.transport.write(answer)
                self.transport.close()

        def _rests(self) -> bool:
            """Whether what comes is the rest of a body that was refused, and has its answer."""
            return self.cycle is not None and self.cycle.more_body

    return Watched
