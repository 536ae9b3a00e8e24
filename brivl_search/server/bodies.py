"""Bodies of requests: none is larger or slower than allowed, and all together fit into memory."""

from __future__ import annotations

import time

import anyio
from starlette.types import Message, Receive

from brivl_search.server.protocol.problems import Refusal
from brivl_search.server.settings import Settings

_AT_ONCE = 4  # of the largest bodies fit in at once; on their way to a picture each is copied a few times
LEAST_RATE = 1000  # bytes a second that a body must come with, beside its first seconds


class Bodies:
    """The bodies that a server is receiving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._room = _AT_ONCE * settings.max_body
        self._held = 0  # bytes of requests that are not answered yet

    def of(self, receive: Receive) -> Body:
        """The body of a request; `close` it when the request is answered."""
        return Body(self, receive)

    def check(self, length: str | None) -> None:
        """Raises Refusal: the length that a request announces is no number, or too large."""
        if length is None:
            return
        if not (length.isascii() and length.isdigit()):
            raise Refusal(400, "Content-Length is no number", "bad_length")
        most = self._settings.max_body
        if len(length) > 18 or int(length) > most:
            raise too_large(most)

    @property
    def most(self) -> int:
        return self._settings.max_body

    @property
    def seconds(self) -> float:
        return self._settings.body_timeout_s

    def hold(self, size: int) -> None:
        """Raises Refusal: the server holds so many bytes already that it takes no more for now."""
        if size and self._held and self._held + size > self._room:
            message = "the bodies of other requests fill the memory of this server: try again later"
            raise Refusal(503, message, "overloaded", {"Retry-After": "1"})
        self._held += size

    def let_go(self, size: int) -> None:
        self._held -= size


class Body:
    """ASGI's `receive` of one request, with limits.

    Attributes:
        refusal: why the body was refused; None if it was not.
    """

    def __init__(self, bodies: Bodies, receive: Receive) -> None:
        self._bodies, self._receive = bodies, receive
        self._seen = self._held = 0
        self._whole = False
        self._begun = time.monotonic()
        self.refusal: Refusal | None = None

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # whether the client is still there
        left = self._bodies.seconds + self._seen / LEAST_RATE - (time.monotonic() - self._begun)
        try:
            with anyio.fail_after(max(left, 0)):
                message = await self._receive()
            self._take(message)
        except TimeoutError:
            self.refusal = Refusal(
                408,
                f"the rest of the request did not come within {self._bodies.seconds:g} s and 1 s for each "
                f"{LEAST_RATE:,} bytes",
                "request_too_slow",
                {"Connection": "close"},
                seconds=self._bodies.seconds,
            )
            raise self.refusal from None
        except Refusal as refusal:
            self.refusal = refusal
            raise
        return message

    def _take(self, message: Message) -> None:
        self._whole = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self._seen += size
        if self._seen > self._bodies.most:
            raise too_large(self._bodies.most)
        self._bodies.hold(size)
        self._held += size

    def close(self) -> None:
        """The request is answered: its bytes are free again."""
        self._bodies.let_go(self._held)
        self._held = 0


def too_large(most: int) -> Refusal:
    message = f"the request is larger than {most:,} bytes, the limit of this server"
    return Refusal(413, message, "request_too_large", limit=most)
