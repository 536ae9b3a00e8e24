"""Connections that keep a server waiting: deadlines, and a cap that costs them and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

import httpx

from brivl_search.server import Settings, create_app
from brivl_search.server.connections import Connections, Patience, most_connections, watched
from tests.support import serving
from tests.support.serving import RED

HALF_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
HALF_BODY = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
)
PATIENCE = {"head_timeout_s": 0.4, "body_timeout_s": 0.6, "answer_timeout_s": 0.5}


@contextlib.contextmanager
def serve(index: Path, **settings: object) -> Iterator[str]:
    chosen = Settings(warm=False, decoders=1, **settings)  # type: ignore[arg-type]
    with serving.running(create_app(serving.open_engine(index), chosen), chosen) as address:
        yield address


@contextlib.contextmanager
def calls(address: str, number: int, *sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections, on each of which so much was sent, one kind after the other."""
    parts = urlsplit(address)
    open_ = []
    try:
        for at in range(number):
            one = socket.create_connection((parts.hostname or "", parts.port or 0), 5)
            open_.append(one)
            if what := sent[at % len(sent)]:
                one.sendall(what)
        yield open_
    finally:
        for one in open_:
            one.close()


def rest(one: socket.socket, seconds: float = 30) -> bytes:
    """All that comes until the server closes the connection."""
    one.settimeout(seconds)
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(65536):
            found += data
    return found


def test_headers_have_a_deadline(index: Path) -> None:
    starts = (b"", b"GE", HALF_HEAD)
    with serve(index, **PATIENCE) as address, calls(address, len(starts), *starts) as connections:
        start = time.monotonic()

        def ended(one: socket.socket) -> tuple[bytes, float]:
            return rest(one), time.monotonic() - start

        with ThreadPoolExecutor(len(starts)) as pool:
            answers = dict(zip(starts, pool.map(ended, connections), strict=True))
    assert not {
        sent: (answer, seconds)
        for sent, (answer, seconds) in answers.items()
        if not (0.3 < seconds < 2.5 and answer.startswith(b"HTTP/1.1 408 "))
    }


def test_headers_that_drip_have_the_same_deadline(index: Path) -> None:
    with serve(index, **PATIENCE) as address, calls(address, 1, HALF_HEAD) as (one,):
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 4:
                one.sendall(b"X: y\r\n")
                time.sleep(0.1)
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not one.recv(100).startswith(b"HTTP/1.1 408"):
                        break
        assert time.monotonic() - start < 2.5


def test_the_second_request_of_a_connection_has_it_too(index: Path) -> None:
    with serve(index, **PATIENCE) as address, calls(address, 1, HALF_HEAD + b"\r\n") as (one,):
        assert b"200 OK" in one.recv(65536)
        one.sendall(HALF_HEAD)
        assert b"HTTP/1.1 408 " in rest(one)  # perhaps behind the body of the first answer


@pytest.mark.parametrize("drip", [b"", b" "])
def test_bodies_have_a_deadline(index: Path, drip: bytes) -> None:
    with serve(index, **PATIENCE) as address, calls(address, 1, HALF_BODY) as (one,):
        start = time.monotonic()
        if drip:
            for _ in range(5):
                time.sleep(0.1)
                one.sendall(drip)
        answer = rest(one)
        assert time.monotonic() - start < 2.5
        assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":"request_too_slow"' in answer


def test_a_slow_body_that_comes_fast_enough_is_taken(index: Path) -> None:
    """A second more for each 1,000 bytes: 0.6 s would not do for this picture."""
    head = b"POST /image_query HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + RED + b"\r\n--b--\r\n"
    with serve(index, **PATIENCE) as address, calls(address, 1, head) as (one,):
        one.sendall(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (len(form) + 2000))
        one.sendall(form)
        time.sleep(1.2)
        one.sendall(b"\r\n" * 1000)
        assert rest(one).startswith(b"HTTP/1.1 200 ")


def test_headers_have_a_size(index: Path) -> None:
    with serve(index) as address, calls(address, 1, HALF_HEAD + b"X: " + b"y" * 100_000) as (one,):
        assert rest(one).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


class Pipe:
    """A transport whose client takes as much as it is told."""

    def __init__(self) -> None:
        self.left, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


def test_an_answer_that_nobody_reads_has_a_deadline() -> None:
    protocol = watched(asyncio.Protocol, Connections(Patience(answer_s=5)))()
    protocol.transport, protocol.cycle = Pipe(), SimpleNamespace(response_complete=False, more_body=False)

    def after(seconds: float, left: int) -> bool:
        protocol.transport.left = left
        protocol.look(seconds)
        return bool(protocol.transport.aborted)

    assert not after(1, 100) and not after(4, 100)
    assert not after(8, 60)  # it takes some, slowly
    assert not after(12, 60) and after(13.1, 60)
    protocol.transport = Pipe()
    assert not after(100, 0) and not after(200, 0) and not after(201, 5) and not after(205, 5)


def test_half_sent_requests_keep_nobody_out(index: Path) -> None:
    with serve(index, max_connections=40) as address, calls(address, 120, b"", HALF_HEAD, HALF_BODY) as slow:
        anew = httpx.Limits(max_keepalive_connections=0)  # a connection for each request
        with httpx.Client(base_url=address, timeout=5, limits=anew) as client:
            for _ in range(20):
                assert client.get("/healthz").status_code == 200
            assert client.post("/v1/search", json={"text": "x"}).status_code == 200
        open_ = 0
        for one in slow:
            one.setblocking(False)
            try:
                open_ += bool(one.recv(100))
            except BlockingIOError:
                open_ += 1
            except ConnectionError:
                pass
        assert 0 < open_ <= 40


def test_requests_that_are_answered_are_not_dropped(index: Path) -> None:
    with serve(index, max_connections=16) as address, httpx.Client(base_url=address, timeout=10) as client:
        assert client.get("/healthz").status_code == 200
        with calls(address, 30, HALF_HEAD):
            for _ in range(5):
                assert client.post("/v1/search", json={"text": "a red circle"}).status_code == 200


def test_the_cap_leaves_files_for_the_index() -> None:
    assert 16 <= most_connections(1000) <= 1000 and most_connections(20) == 20
