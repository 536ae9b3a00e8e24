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


def behind(index: Path, **settings: object) -> TestClient:
    """A server that a proxy on this machine calls by its own address."""
    app = create_app(serving.open_engine(index), Settings(warm=False, decoders=1, **settings))  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 40000))


def test_a_page_behind_a_proxy_that_rewrites_host(index: Path) -> None:
    page = {"Origin": "https://photos.example.com", "Sec-Fetch-Site": "same-origin"}
    with behind(index, allowed_hosts=("photos.example.com",)) as client:
        assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
        assert client.post("/v1/search", json={"text": "x"}, headers=page).status_code == 200
        odd = {**page, "Origin": "https://photos.example.com:8443"}
        answer = client.post("/v1/search", json={"text": "x"}, headers=odd)
        assert answer.status_code == 403 and "`allowed_hosts`" in answer.json()["error"]["message"]
    with behind(index, token=TOKEN, allowed_hosts=("photos.example.com:8443",)) as client:
        headers = {**page, "Origin": "https://photos.example.com:8443", "Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/search", json={"text": "x"}, headers=headers).status_code == 200
    with behind(index) as client:
        assert client.post("/v1/search", json={"text": "x"}, headers=page).status_code == 403


def test_the_host_that_a_trusted_proxy_was_called_by(index: Path) -> None:
    called = {"X-Forwarded-Host": "photos.example.com", "X-Forwarded-Proto": "https"}
    page = {**called, "Origin": "https://photos.example.com"}
    search = {"text": "x"}
    with behind(index, trusted_proxies=("127.0.0.1",), allowed_hosts=("photos.example.com",)) as client:
        assert client.post("/v1/search", json=search, headers=page).status_code == 200
        foreign = {**page, "X-Forwarded-Host": "evil.example"}
        assert client.post("/v1/search", json=search, headers=foreign).status_code == 403
        assert client.get("/v1/index", headers={"X-Forwarded-Host": "["}).status_code == 400
        # The name that the proxy was called by cannot hide a foreign Host.
        assert client.get("/v1/index", headers={**called, "Host": "evil.example"}).status_code == 403
    with behind(index, trusted_proxies=("127.0.0.1",), token=TOKEN) as client:
        token = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/search", json=search, headers={**page, **token}).status_code == 200
        cookie = client.post("/v1/session", json={"token": TOKEN}, headers=page).headers["set-cookie"]
        assert "Secure" in cookie
    with behind(index, token=TOKEN) as client:  # nobody is trusted
        assert client.post("/v1/search", json=search, headers={**page, **token}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "["}, 400),
        ({"Host": "localhost:x"}, 400),
        ({"Host": "a b"}, 400),
        ({"Host": "localhost/evil"}, 400),
        ({"Host": "user@localhost"}, 400),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:99999"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": "\x80"}, 403),
        ({"Cookie": "brivl_token=\x80; ;;=\""}, 200),
        ({"Authorization": "\xff"}, 200),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "1e3"}, 400),
        ({"Content-Length": "\xb2"}, 400),
        ({"Content-Length": "9" * 5000}, 413),
        ({"X-Forwarded-For": "["}, 200),
        ({"Accept-Encoding": "\x80;q=x"}, 200),
        ({"Accept": "]["}, 200),
    ],
)  # fmt: skip
def test_malformed_headers(client: TestClient, headers: dict[str, str], status: int) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    assert client.get("/v1/index", headers=raw).status_code == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=x-y"},
        {"Range": "bytes=9999999999999999999999-"},
        {"Range": "["},
        {"If-Modified-Since": "no date"},
        {"If-None-Match": '"\x80'},
        {"If-Range": "["},
    ],
)
def test_malformed_headers_of_files(client: TestClient, headers: dict[str, str]) -> None:
    ((key, _), *_) = keys_of(client)
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/", "/docs/", f"/v1/items/{key}/thumbnail", f"/v1/items/{key}/image"):
        assert client.get(path, headers=raw).status_code in (200, 206, 400, 416), path  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\x80",
        "multipart/form-data; boundary=a; charset=nosuch",
        "multipart/form-data; boundary=" + "a" * 5000,
        ";",
        "\x80",
        "application/json; charset=utf-7",
    ],
)
def test_malformed_content_types(client: TestClient, kind: str) -> None:
    for path in ("/v1/search", "/image_query", "/v1/items", "/v1/session", "/v1/classify"):
        answer = client.post(path, content=b"--a\r\n\r\nx", headers={"Content-Type": kind.encode("latin-1")})  # type: ignore[dict-item]
        assert 400 <= answer.status_code < 500, (path, answer.text)


@pytest.mark.parametrize("path", ["/%00", "/docs/%00", "/docs/%ff", "/..%2f..%2fetc/passwd", "/v1/items/%00", "/%"])
def test_malformed_paths(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (400, 404)


def test_every_get_answers_head(client: TestClient) -> None:
    ((key, _), *_) = keys_of(client)
    asked = {"/text_query": {"text": "a dog"}}
    routes = client.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in routes.items() if "get" in methods]
    assert len(paths) >= 10
    for path in (*paths, "/", "/docs", "/docs/", "/openapi.json"):
        address = path.replace("{key}", key)
        get, head = (client.request(how, address, params=asked.get(path)) for how in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (get.status_code, b""), path


def test_forwarded_headers_count_only_for_a_trusted_proxy(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    def statuses(client: TestClient) -> list[int]:
        calls = ({"X-Forwarded-For": f"10.0.0.{n}, 20.0.0.{n % 2}"} for n in range(60))
        return [client.get("/v1/index", headers=headers).status_code for headers in calls]

    with behind(index, rate=3) as client:
        assert statuses(client).count(429) >= 50
    assert sum("`trusted_proxies`" in line for line in caplog.messages) == 1
    with behind(index, rate=3, trusted_proxies=("127.0.0.1",)) as client:
        caplog.clear()
        caplog.set_level(logging.DEBUG, "brivl_search")
        assert 44 <= statuses(client).count(429) <= 48  # two clients, each with its own six
        assert {line.split()[0] for line in caplog.messages if "/v1/index" in line} == {"20.0.0.0", "20.0.0.1"}


def test_a_client_that_leaves_is_no_defect(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "brivl_search")
    with behind(index) as client:
        app, sent = client.app, []

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "root_path": "",
            "scheme": "http", "query_string": b"", "http_version": "1.1", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000), "headers": [(b"host", b"localhost"), (b"content-length", b"5")],
        }  # fmt: skip
        client.portal.call(app, scope, receive, send)  # type: ignore[union-attr]
    assert sent == [] and [line.split()[1:4] for line in caplog.messages] == [["POST", "/v1/search", "499"]]
