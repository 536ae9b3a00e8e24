"""The part of an address after ? is UTF-8, or the request is refused. A framework would put marks for what is not."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from brivl_search.corpus.encodings import decode_file
from brivl_search.errors import UsageError
from brivl_search.server.protocol.problems import explain


class QueryText:
    """ASGI middleware that answers 400 with the code `not_utf8` where a query string does not decode."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (raw := scope.get("query_string", b"")):
            try:
                for part in raw.split(b"&"):
                    name, _, value = part.partition(b"=")
                    shown = unquote_to_bytes(name).decode("ascii", "backslashreplace")[:40]
                    decode_file(unquote_to_bytes(value), f"`{shown}` of the address")
                    decode_file(unquote_to_bytes(name), "a name in the address")
            except UsageError as error:
                answer = explain(error)
                assert answer is not None
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
