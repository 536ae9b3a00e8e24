"""HEAD: every address that answers to GET answers to HEAD too."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """ASGI middleware that answers HEAD as GET, without the body: health checks and link checkers send it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # shared, for what the guard writes into the log
        as_get = {**scope, "method": "GET"}

        async def headers_alone(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await self._app(as_get, receive, headers_alone)
        finally:
            if "route" in as_get:
                scope["route"] = as_get["route"]
