"""Who may ask, and how often: hosts, origins, rates, tokens, before any route is reached. Sizes: see `bodies`."""

from __future__ import annotations

import hmac
import logging
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brivl_search.server.bodies import Bodies
from brivl_search.server.callers import (
    CLIENT,
    Place,
    bucket_of,
    is_own,
    names,
    parse_network,
    parse_origin,
    parse_place,
    see_through,
)
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
_LEFT = 499  # the client has gone before its answer; nobody sees this status but the log

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
        self._bodies = Bodies(settings)
        self._trusted = [parse_network(one) for one in settings.trusted_proxies]
        self._allowed = [place for one in settings.allowed_hosts if (place := parse_place(one))]
        self._hinted = False

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

        called = see_through(scope, self._trusted)
        CLIENT.set(bucket_of(scope))
        body = self._bodies.of(receive)
        try:
            self._check(scope, called)
            await self._app(scope, body, answer)
        except ClientDisconnect:
            status = status or _LEFT
        except Exception as error:
            known = explain(body.refusal or error)
            if known is None:
                log.exception("a defect: %s %s", scope["method"], _route(scope))
                known = problem(500, "a defect of the server; its log says more")
            elif status == 0 and isinstance(error, Refusal):
                self._telemetry.rejected.labels(str(error.status)).inc()
            if status == 0:
                await known(scope, receive, answer)
        finally:
            body.close()
            self._note(scope, status, time.perf_counter() - start)

    # -- checks --------------------------------------------------------------------------------------------------

    def _check(self, scope: Scope, called: list[str]) -> None:
        """Raises Refusal. `called`: hosts that a trusted proxy was called by."""
        headers = Headers(scope=scope)
        path = scope["path"]
        hosts = self._check_host(headers, called)
        if path.startswith(_GUARDED):
            self._check_origin(headers, hosts)
            self._check_rate(scope, headers)
            if path != _OPEN:
                self._check_token(headers)
            self._bodies.check(headers.get("content-length"))

    def _check_host(self, headers: Headers, called: list[str]) -> list[Place]:
        """The names that the server was called by. Raises Refusal: one is none, or is foreign.

        Where no token is asked for, a name that a stranger's DNS points at this machine must not do (rebinding).
        """
        given = [host for host in [*names(headers, "host"), *called] if host]
        places = [parse_place(host) for host in given]
        hosts = [place for place in places if place is not None]
        if len(hosts) < len(given) or len(names(headers, "host")) > 1:
            raise Refusal(400, "Host is no name of a server, or there are several", "bad_host")
        if self._settings.token is None and not (hosts and all(self._is_named(place) for place in hosts)):
            message = "call this server by the name localhost, or add the name to its `allowed_hosts`"
            raise Refusal(403, message, "foreign_host")
        return hosts

    def _is_named(self, place: Place) -> bool:
        return is_loopback(place.host) or any(place.host == one.host for one in self._allowed)

    def _check_origin(self, headers: Headers, hosts: list[Place]) -> None:
        """Pages of other sites may not ask in the name of who looks at them."""
        given = names(headers, "origin")
        if not given:
            foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        else:
            origin = parse_origin(given[0]) if len(given) == 1 else None
            foreign = origin is None or not is_own(origin, hosts, self._allowed)
        if foreign:
            message = (
                "requests from pages of other sites are refused; a proxy's own name (with its port, where that is none "
                "of the usual ones) goes into `allowed_hosts`"
            )
            raise Refusal(403, message, "foreign_page")

    def _check_rate(self, scope: Scope, headers: Headers) -> None:
        """A token bucket for each client, which holds two seconds' worth."""
        if not self._rate:
            return
        if not self._hinted and "x-forwarded-for" in headers:
            self._hinted = True
            if not self._trusted:
                log.warning(
                    "requests come through a proxy, whose clients share one rate: name the proxy's address with "
                    "`trusted_proxies`"
                )
        client = bucket_of(scope)
        now = time.monotonic()
        room = max(2 * self._rate, 1.0)
        left, then = self._buckets.pop(client, (room, now))
        left = min(room, left + (now - then) * self._rate)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
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
