"""What may be chosen about a server, and what is refused before it starts."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

from brivl_search.errors import UsageError
from brivl_search.search.options import SearchOptions
from brivl_search.server.callers import parse_network, parse_place

STATIC = Path(__file__).parent / "static"
LEAST_TOKEN = 8  # characters; shorter ones are guessed


@dataclass(frozen=True)
class Settings:
    """Choices of one server; the defaults are the command line's.

    Attributes:
        host: address to listen on.
        token: what clients must show; None: nothing, on loopback only.
        read_only: refuse to change the index.
        upload_dir: where uploaded images are kept that are added to the index; None: none are taken.
        rate: requests a second of each client address, 0: no limit; None: none on loopback, 100 elsewhere.
        max_k: hits of a request, what is skipped by `offset` included.
        max_upload_bytes: of one uploaded image.
        max_uploads: images in a request.
        max_megapixels: of an uploaded image.
        max_terms: of a query.
        max_texts: in a request.
        max_text: characters of a text.
        max_file_bytes: of an indexed image that is shown.
        decode_timeout_s: an image that takes longer is refused.
        decoders: processes that decode; each may die.
        batch: most texts or pictures in one call of a tower.
        warm: load both towers before the server says that it is ready.
        log_queries: write texts of queries into the log.
        allowed_hosts: names by which clients may call, beside addresses of this machine, and whose pages may ask: a
            proxy's. With the port, where that is none of the usual ones.
        trusted_proxies: addresses, or networks, of proxies whose X-Forwarded-For, -Host and -Proto are believed.
        head_timeout_s: for the headers of a request, from the first byte on.
        body_timeout_s: for its body; and a second more for each 1,000 bytes of it.
        answer_timeout_s: in which a client must take some of its answer.
        max_connections: open at once.
        rerank_with: the matcher that re-orders hits where a request asks for it; None: none does.
        rerank_top: how many hits it re-orders.
        static: folder of the page.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    read_only: bool = False
    upload_dir: Path | None = None
    rate: float | None = None
    max_k: int = 1000
    max_upload_bytes: int = 20_000_000
    max_uploads: int = 16
    max_megapixels: float = 50.0
    max_terms: int = 16
    max_texts: int = 256
    max_text: int = 2000
    max_file_bytes: int = 200_000_000
    decode_timeout_s: float = 20.0
    decoders: int = 2
    batch: int = 64
    warm: bool = True
    log_queries: bool = False
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    head_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    answer_timeout_s: float = 60.0
    max_connections: int = 1000
    rerank_with: str | None = None
    rerank_top: int = 32
    static: Path = STATIC

    def __post_init__(self) -> None:
        """Raises UsageError: a choice that would leave the server open, or makes no sense."""
        if self.token is not None and (len(self.token) < LEAST_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"`token`: give at least {LEAST_TOKEN} ASCII characters, such as `openssl rand -hex 24` makes"
            )
        if not self.loopback and self.token is None:
            raise UsageError(
                f"`host` {self.host} can be reached from other machines: give a `token` that clients must show "
                "(or set BRIVL_SEARCH_TOKEN), or leave `host` at 127.0.0.1"
            )
        if not 0 < self.max_megapixels < math.inf:
            raise UsageError(f"`max_megapixels` {self.max_megapixels:g}: give a number of megapixels, such as 50")
        if self.rate is not None and not 0 <= self.rate < math.inf:
            raise UsageError(f"`rate` {self.rate:g}: give requests a second, or 0 for no limit")
        SearchOptions(rerank_top=self.rerank_top)  # it checks the number, as each search would
        for host in self.allowed_hosts:
            if parse_place(host) is None:
                raise UsageError(
                    f"`allowed_hosts` {host}: give a name such as photos.example.com, or photos.example.com:8443"
                )
        for address in self.trusted_proxies:
            try:
                parse_network(address)
            except ValueError:
                raise UsageError(
                    f"`trusted_proxies` {address}: give the proxy's address, such as 127.0.0.1, or a network, such as "
                    "10.0.0.0/8"
                ) from None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def requests_a_second(self) -> float:
        """Of each client; 0: no limit."""
        if self.rate is not None:
            return self.rate
        return 0.0 if self.loopback else 100.0

    @property
    def max_body(self) -> int:
        """Bytes of a request: its uploads, as base64 if need be, and some words."""
        return self.max_upload_bytes * 4 // 3 + (4 << 20)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; names but "localhost" are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
