"""Servers for tests: an index of drawn pictures behind the real application, in this process or on a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from brivl_search.encoders.calibration import Calibration
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import Engine
from brivl_search.server import Settings, create_app
from brivl_search.server.listening import server_options
from tests.support.pictures import draw, encoded, write_corpus
from tests.support.stub import Silent, StubEncoder

MATCH = Calibration(10.0, -5.0)
RED = encoded(draw("red", "circle"), "PNG")


def encoder() -> StubEncoder:
    stub = StubEncoder()
    stub.calibration = MATCH
    return stub


def write_site(folder: Path, pictures: int = 30) -> Path:
    """FOLDER/photos with captions, and FOLDER/index of them."""
    write_corpus(folder / "photos", pictures)
    index = folder / "index"
    build_index([folder / "photos"], index, encoder(), BuildOptions(workers=0), Silent())
    return index


def open_engine(index: Path) -> Engine:
    engine = Engine(index)
    engine.encoder = encoder()
    return engine


@contextlib.contextmanager
def client(index: Path, settings: Settings | None = None, **headers: str) -> Iterator[TestClient]:
    """Of a server in this process that has started. Errors that no route explains fail the test."""
    app = create_app(open_engine(index), replace(settings or Settings(warm=False), decoders=1))
    with TestClient(app, base_url="http://127.0.0.1:8000", headers=headers) as calls:
        yield calls


@contextlib.contextmanager
def running(app: Any, settings: Settings | None = None) -> Iterator[str]:
    """The address of an application that a thread serves on a free port, as the command line would."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, **server_options(settings or Settings())))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def search(client: TestClient, **request: Any) -> list[dict[str, Any]]:
    """The hits of a search that succeeds."""
    answer = client.post("/v1/search", json=request)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def refused(client: TestClient, **request: Any) -> tuple[int, str]:
    """Status and message of a search that fails."""
    answer = client.post("/v1/search", json=request)
    assert answer.status_code >= 400
    return answer.status_code, answer.json()["error"]["message"]


def keys_of(client: TestClient, text: str = "x", k: int = 3) -> list[tuple[str, Path]]:
    """Key and path of a search's hits."""
    return [(hit["key"], Path(hit["path"])) for hit in search(client, text=text, k=k)]
