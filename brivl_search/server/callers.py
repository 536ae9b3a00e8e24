"""Who calls, and by which name: Host, Origin, and what a trusted proxy says of them. What is malformed reads as None.

A server behind a proxy sees the proxy as its client and, often, another Host than the browser asked for. What the
proxy says of the browser (X-Forwarded-For, -Host, -Proto) counts only if the proxy's address is trusted: any client
can send these headers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Of the request that the task answers; workers share their time among clients by it.
CLIENT: ContextVar[str] = ContextVar("client", default="")

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*)\Z")
_PORTS = {"http": 80, "https": 443}
_MOST_HOPS = 32  # addresses of one request that are looked at


@dataclass(frozen=True)
class Place:
    """A host and a port as a header names them.

    Attributes:
        host: a name in lower case without the last dot, or an address without brackets.
        port: None: none was given.
    """

    host: str
    port: int | None = None

    def at(self, scheme: str) -> tuple[str, int | None]:
        """The host, and the port that the scheme adds where none was given."""
        return self.host, self.port or _PORTS.get(scheme)


def parse_place(text: str) -> Place | None:
    """ "photos.example:8000", "[::1]", "127.0.0.1" → a place; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        address = parse_address(inside)
        if not bracket or address is None or ":" not in inside:
            return None
        host = str(address)
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
        if not _NAME.match(host):
            return None
        host = host.lower().rstrip(".")
    if not rest:
        return Place(host)
    number = rest[1:]
    if rest[0] != ":" or not (number.isascii() and number.isdigit()) or len(number) > 5 or int(number) > 65535:
        return None
    return Place(host, int(number)) if host else None


def parse_origin(text: str) -> tuple[str, Place] | None:
    """ "https://photos.example" → its scheme and place; None if it is none, or "null"."""
    scheme, mark, rest = text.strip().partition("://")
    place = parse_place(rest) if mark and scheme.lower() in _PORTS else None
    return None if place is None else (scheme.lower(), place)


def parse_address(text: str) -> Address | None:
    """An IP address without brackets, port or zone; None if it is none. IPv4 inside of IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def parse_network(text: str) -> Network:
    """ "10.0.0.0/8", "::1" → a network. Raises ValueError."""
    return ipaddress.ip_network(text.strip().strip("[]"), strict=False)


def names(headers: Headers, name: str) -> list[str]:
    """What a header that may come once says; several values only if they differ."""
    return list(dict.fromkeys(value.strip() for value in headers.getlist(name)))


def is_own(origin: tuple[str, Place], hosts: Iterable[Place], allowed: Sequence[Place]) -> bool:
    """Whether a page of this origin is the server's own.

    Args:
        origin: scheme and place.
        hosts: by which the server was called: Host, and what a trusted proxy says of it.
        allowed: further names of the server. One without a port stands for the usual ports.
    """
    scheme, place = origin
    if any(place.at(scheme) == host.at(scheme) for host in hosts):
        return True
    return any(place.at(scheme) == (one.host, one.port or _PORTS[scheme]) for one in allowed)


# -- what a trusted proxy says -----------------------------------------------------------------------------------


def see_through(scope: Scope, trusted: Sequence[Network]) -> list[str]:
    """Puts the client of a trusted proxy, and its scheme, in the place of the proxy's.

    The client is the rightmost address of X-Forwarded-For that is not trusted itself: each proxy adds the address that
    it saw to the right, and what stands further left anyone may have written.

    Args:
        scope: of the request; changed in place.
        trusted: addresses of proxies; none: every header is passed over.

    Returns:
        The hosts that the proxy was called by (X-Forwarded-Host), none if it says nothing.
    """
    peer = scope.get("client")
    address = parse_address(str(peer[0])) if peer else None
    if address is None or not _among(address, trusted):
        return []
    headers = Headers(scope=scope)
    said = ",".join(headers.getlist("x-forwarded-for")).split(",")
    seen = address
    for one in reversed(said[-_MOST_HOPS:]):
        hop = _hop(one)
        if hop is None:  # nothing, or nonsense from further left: the last that is known
            break
        seen = hop
        if not _among(hop, trusted):
            break
    scope["client"] = (str(seen), 0)
    scheme = _last(headers.getlist("x-forwarded-proto")).lower()
    if scheme in _PORTS:
        scope["scheme"] = scheme
    host = _last(headers.getlist("x-forwarded-host"))
    return [host] if host else []


def bucket_of(scope: Scope) -> str:
    """Whose rate a request counts for: the client's address, of IPv6 the network of 64 bits that one customer gets."""
    host = str((scope.get("client") or ("",))[0])
    address = parse_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address or host)


def _hop(text: str) -> Address | None:
    """An entry of X-Forwarded-For: an address, perhaps with brackets and a port."""
    text = text.strip().strip('"')
    if address := parse_address(text):
        return address
    place = parse_place(text)
    return None if place is None else parse_address(place.host)


def _last(values: Sequence[str]) -> str:
    return ",".join(values).rpartition(",")[2].strip()


def _among(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == one.version and address in one for one in networks)
