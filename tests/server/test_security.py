"""Who may ask, how often and how much; what is written down; what a defect shows."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from brivl_search.server import Settings, create_app
from brivl_search.server.security import CSP
from tests.support import serving
from tests.support.pictures import bomb_png, draw, encoded, jpeg
from tests.support.serving import keys_of

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(index: Path) -> Iterator[TestClient]:
    with serving.client(index, Settings(token=TOKEN, warm=False)) as client:
        yield client


def test_every_route_with_data_asks_for_the_token(guarded: TestClient) -> None:
    open_routes = {"/healthz", "/readyz", "/v1/session"}
    routes = [route for route in guarded.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]
    routes += [one for route in guarded.app.routes for one in _inner(route)]  # type: ignore[attr-defined]
    assert len(routes) >= 20
    for route in routes:
        path = route.path.replace("{key}", "iAAAA")
        for method in route.methods:
            answer = guarded.request(method, path)
            assert (answer.status_code == 401) == (route.path not in open_routes), (method, path, answer.status_code)
    assert guarded.get("/").status_code == 200 and guarded.get("/docs/").status_code == 200
    assert guarded.get("/v1/nothing").status_code == 401


def _inner(route: object) -> list[APIRoute]:
    inner = getattr(getattr(route, "original_router", None), "routes", [])
    return [one for one in inner if isinstance(one, APIRoute)]


def test_the_token(guarded: TestClient) -> None:
    for shown in (
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ä",
    ):
        answer = guarded.get("/v1/index", headers={"Authorization": shown.encode()})  # type: ignore[dict-item]
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/v1/index", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get(f"/v1/index?token={TOKEN}").status_code == 401  # addresses end up in logs
    assert guarded.post("/v1/session", json={"token": "wrong, and longer than eight"}).status_code == 401
    assert guarded.get("/v1/index").status_code == 401
    answer = guarded.post("/v1/session", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 204 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert guarded.get("/v1/index").status_code == 200
    guarded.cookies.clear()


def test_the_token_is_compared_in_constant_time(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.server import security

    compared = []
    real = security.hmac.compare_digest
    monkeypatch.setattr(security.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert security.fits(Settings(token=TOKEN), TOKEN) and not security.fits(Settings(token=TOKEN), "no")
    assert len(compared) == 2


def test_strange_hosts_and_origins(client: TestClient, guarded: TestClient, index: Path) -> None:
    for host in ("evil.example", "evil.example:8000", "169.254.1.1", ""):
        assert client.get("/v1/index", headers={"Host": host}).status_code == 403  # DNS rebinding
        assert client.get("/", headers={"Host": host}).status_code == 403
    for host in ("localhost:9", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/index", headers={"Host": host}).status_code == 200
    search = {"text": "x"}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/v1/search", json=search, headers=headers).status_code == 403
        assert client.get("/v1/index", headers=headers).status_code == 403
    assert client.post("/v1/search", json=search, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    assert guarded.get("/healthz", headers={"Host": "photos.example"}).status_code == 200
    with serving.client(index, Settings(allowed_hosts=("photos.example",), warm=False)) as behind:
        assert behind.get("/v1/index", headers={"Host": "photos.example"}).status_code == 200


def test_headers(client: TestClient) -> None:
    ((key, _), *_) = keys_of(client)
    for path in ("/", "/v1/index", f"/v1/items/{key}/image", "/docs/", "/nothing", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == CSP and headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in CSP and "default-src 'none'" in CSP and "http" not in CSP


def test_rates(index: Path) -> None:
    with serving.client(index, Settings(rate=5, warm=False)) as client:
        statuses = [client.get("/v1/index").status_code for _ in range(30)]
        assert statuses[:10] == [200] * 10 and 429 in statuses
        answer = client.get("/v1/index")
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        time.sleep(0.5)
        assert client.get("/v1/index").status_code == 200


def test_sizes_are_limited(index: Path) -> None:
    with serving.client(index, Settings(max_upload_bytes=100_000, max_uploads=2, max_k=20, max_megapixels=1)) as client:
        big = b"\xff\xd8\xff" + bytes(100_000)
        for answer in (
            client.post("/v1/search", files={"image": big}),
            client.post("/image_query", files={"image": big}),
            client.post("/v1/search", content=b"x" * 5_000_000, headers={"Content-Type": "application/json"}),
            client.post("/v1/search", content=_endless(), headers={"Content-Type": "application/json"}),
            client.post("/v1/search", files={"image": bomb_png()}),
            client.post("/v1/search", files={"image": encoded(draw("red", "ring", (1100, 1000)), "PNG")}),
            client.post("/v1/search", json={"text": "x", "k": 21}),
            client.post("/knn-service", json={"text": "x", "num_images": 21}),
            client.post("/v1/embed/text", json={"texts": ["x"] * 257}),
        ):
            assert answer.status_code == 413, answer.text
            assert answer.json()["error"]["type"] == "too_large"
        answer = client.post("/v1/search", files=[("image", jpeg())] * 3)
        assert answer.status_code == 400, answer.text
        length = {"Content-Length": "x", "Content-Type": "application/json"}
        assert client.post("/v1/search", content=b"{}", headers=length).status_code == 400


def _endless() -> Iterator[bytes]:
    """A body whose size is not announced."""
    for _ in range(100):
        yield b"x" * 100_000


def test_the_log_holds_no_queries(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for asked in (False, True):
        caplog.clear()
        with serving.client(index, Settings(log_queries=asked, warm=False)) as client:
            ((key, path), *_) = keys_of(client, "my secret wish")
            client.get("/text_query", params={"text": "my secret wish"})
            client.get(f"/v1/items/{key}")
            client.post("/v1/search", json={"text": "my secret wish", "k": -1})
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("brivl_search")]
        assert any("POST /v1/search 200" in line for line in ours)
        assert any("secret wish" in line for line in ours) == asked
        assert not any(path.name in line or key in line for line in ours)


def test_the_log_tells_searches_changes_and_errors(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """At the default level; thumbnails, pages and health checks are told at the level below."""
    ((key, _), *_) = keys_of(client)
    for level, told in ((logging.INFO, False), (logging.DEBUG, True)):
        caplog.clear()
        caplog.set_level(level, "brivl_search")
        for path in ("/", "/docs/", "/healthz", "/readyz", "/metrics", "/v1/index", "/v1/map", f"/v1/items/{key}"):
            assert client.get(path).status_code == 200
        assert client.head("/healthz").status_code == client.get(f"/v1/items/{key}/thumbnail").status_code == 200
        assert bool(caplog.records) == told
    caplog.set_level(logging.INFO, "brivl_search")
    caplog.clear()
    client.post("/v1/search", json={"text": "x"})
    client.get("/text_query?text=x")
    client.get("/nothing")
    client.get("/v1/items/iAAAA/thumbnail")
    client.delete("/v1/items/iAAAA")
    lines = [record.getMessage().split(" ", 1)[1].rsplit(" ", 2)[0] for record in caplog.records]
    assert lines == [
        "POST /v1/search 200",
        "GET /text_query 200",
        "GET static 404",
        "GET /v1/items/{key}/thumbnail 404",
        "DELETE /v1/items/{key} 404",
    ]


def test_a_defect_tells_a_client_nothing(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(serving.open_engine(index), Settings(warm=False))
    with TestClient(app, base_url="http://localhost") as client:
        app.state.service._search = lambda name, some: 1 / 0
        answer = client.post("/v1/search", json={"text": "x"})
        assert answer.status_code == 500
        assert answer.json() == {
            "error": {
                "type": "internal",
                "message": "a defect of the server; its log says more",
                "code": "internal",
                "details": {},
            }
        }
        assert answer.headers["content-security-policy"] == CSP
    assert "ZeroDivisionError" in caplog.text
