"""Who may ask, how often and how much: hosts, origins, rates, tokens and sizes, before any route is reached."""

from __future__ import annotations

import hmac
import logging
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brivl_search.server.protocol.problems import Refusal, explain, problem
from brivl_search.server.settings import Settings, is_loopback
from brivl_search.server.telemetry import Telemetry

COOKIE = "brivl_token"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Compatible endpoints stand outside /v1; all else outside it is the page, which holds no data.
_GUARDED = ("/v1/", "/metrics", "/image_query", "/text_query", "/knn-service", "/metadata", "/indices-list")
_OPEN = "/v1/session"
# The log of a default level tells what people ask and change, and what goes wrong; not each thumbnail and health check.
_MACHINES = ("/healthz", "/readyz", "/metrics")
_SEARCHED_BY_GET = ("/text_query",)
_CLIENTS = 10_000  # whose rate is remembered

log = logging.getLogger("brivl_search.server")


class Guard:
    """ASGI middleware around everything. What it refuses reaches no route.

    Args:
        app: what it guards.
        settings: of the server.
        telemetry: counts requests.
    """

    def __init__(self, app: ASGIApp, settings: Settings, telemetry: Telemetry) -> None:
        self._app, self._settings, self._telemetry = app, settings, telemetry
        self._rate = settings.requests_a_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        limited = _Limited(receive, self._settings.max_body)
        try:
            self._check(scope)
            await self._app(scope, limited, answer)
        except Exception as error:
            known = explain(limited.refusal or error)
            if known is None:
                log.exception("a defect: %s %s", scope["method"], _route(scope))
                known = problem(500, "a defect of the server; its log says more")
            elif status == 0 and isinstance(error, Refusal):
                self._telemetry.rejected.labels(str(error.status)).inc()
            if status == 0:
                await known(scope, receive, answer)
        finally:
            self._note(scope, status, time.perf_counter() - start)

    # -- checks --------------------------------------------------------------------------------------------------

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        path = scope["path"]
        self._check_host(headers)
        if path.startswith(_GUARDED):
            self._check_origin(headers)
            self._check_rate(scope)
            if path != _OPEN:
                self._check_token(headers)
            try:
                length = int(headers.get("content-length", "0"))
            except ValueError:
                raise Refusal(400, "Content-Length is no number", "bad_length") from None
            if length > self._settings.max_body:
                raise too_large(self._settings.max_body)

    def _check_host(self, headers: Headers) -> None:
        """Where no token is asked for, a name that a stranger's DNS points at this machine must not do (rebinding)."""
        if self._settings.token is not None:
            return
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
        if not is_loopback(host) and host not in self._settings.allowed_hosts:
            message = "call this server by the name localhost, or add the name to its `allowed_hosts`"
            raise Refusal(403, message, "foreign_host")

    def _check_origin(self, headers: Headers) -> None:
        """Pages of other sites may not ask in the name of who looks at them."""
        origin = headers.get("origin")
        if origin is None:
            foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        else:
            foreign = urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        if foreign:
            raise Refusal(403, "requests from pages of other sites are refused", "foreign_page")

    def _check_rate(self, scope: Scope) -> None:
        """A token bucket for each address, which holds two seconds' worth."""
        if not self._rate:
            return
        client = scope.get("client") or ("",)
        now = time.monotonic()
        room = max(2 * self._rate, 1.0)
        left, then = self._buckets.pop(client[0], (room, now))
        left = min(room, left + (now - then) * self._rate)
        allowed = left >= 1
        self._buckets[client[0]] = (left - 1 if allowed else left, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise Refusal(429, "too many requests: slow down", "rate_limited", {"Retry-After": "1"})

    def _check_token(self, headers: Headers) -> None:
        if self._settings.token is None:
            return
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = _cookie(headers)
        if not fits(self._settings, shown):
            message = "a token is wanted: Authorization: Bearer TOKEN"
            raise Refusal(401, message, "token_wanted", {"WWW-Authenticate": "Bearer"})

    # -- what is kept of a request -------------------------------------------------------------------------------

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self._telemetry.requests.labels(route, scope["method"], str(status)).inc()
        self._telemetry.request_seconds.labels(route).observe(seconds)
        level = _level(scope["method"], route, status)
        if log.isEnabledFor(level):
            client = scope.get("client") or ("-",)
            asked = scope.get("state", {}).get("asked") if self._settings.log_queries else None
            log.log(
                level,
                "%s %s %s %d %.1f ms%s",
                client[0],
                scope["method"],
                route,
                status,
                1000 * seconds,
                f" {asked!r}" if asked else "",
            )


def _level(method: str, route: str, status: int) -> int:
    """At which a request is logged."""
    if route in _MACHINES:
        return logging.DEBUG
    if status >= 500:
        return logging.WARNING
    looks = method in ("GET", "HEAD") and route not in _SEARCHED_BY_GET
    return logging.DEBUG if looks and status < 400 else logging.INFO


def fits(settings: Settings, shown: str) -> bool:
    """Whether this is the server's token, in a time that tells nothing about it."""
    return settings.token is None or hmac.compare_digest(shown.encode("utf-8", "replace"), settings.token.encode())


class _Limited:
    """The body of a request, refused when it grows beyond a size that was not announced."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._seen = 0
        self.refusal: Refusal | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            self.refusal = too_large(self._most)
            raise self.refusal
        return message


def too_large(most: int) -> Refusal:
    message = f"the request is larger than {most:,} bytes, the limit of this server"
    return Refusal(413, message, "request_too_large", limit=most)


def note_query(request: Request, text: str | None) -> None:
    """For the log of a server that was told to write down what is asked."""
    request.scope.setdefault("state", {})["asked"] = text


def _route(scope: Scope) -> str:
    """The route's own spelling: no key, no query string, and so nothing of what somebody looks for."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) and path else "static"


def _cookie(headers: Headers) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    morsel: Any = jar.get(COOKIE)
    return str(morsel.value) if morsel is not None else ""
