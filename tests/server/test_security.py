"""What the server must not do: serve other files, listen to strangers, die of a picture, write down what is asked."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from brivl_search.corpus.images import PixelSpec
from brivl_search.errors import ImageError, UsageError
from brivl_search.server import Settings, create_app
from brivl_search.server.protocol import keys
from brivl_search.server.security import CSP
from brivl_search.server.workers.decoding import Decoders
from tests.support import serving
from tests.support.pictures import CRASH, EXIT, HANG, bomb_png, draw, encoded, jpeg, naughty_decode

TOKEN = "correct horse battery staple"
SECRET = "root:x:0:0:secret"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.write_site(tmp_path_factory.mktemp("site"), 12)


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[TestClient]:
    with serving.client(index) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(index: Path) -> Iterator[TestClient]:
    with serving.client(index, Settings(token=TOKEN, warm=False)) as client:
        yield client


def keys_of(client: TestClient, text: str = "x", k: int = 3) -> list[tuple[str, Path]]:
    hits = client.post("/v1/search", json={"text": text, "k": k}).json()["hits"]
    return [(hit["key"], Path(hit["path"])) for hit in hits]


# -- files -------------------------------------------------------------------------------------------------------


def test_only_files_of_the_index_are_served(client: TestClient, index: Path) -> None:
    secret = index.parent / "photos" / "secret.jpg"  # an image beside the others, and not indexed
    secret.write_bytes(jpeg())
    photo = next((index.parent / "photos" / "images").iterdir())
    for path in (
        secret,
        f"{photo.parent}/../secret.jpg",
        f"{photo.parent}/../images/{photo.name}",  # the same file by another name is not the item
        "/etc/passwd",
        "../../../../etc/passwd",
        "etc/passwd",
        index / "catalog.lmdb",
        "",
        "\0",
    ):
        for what in ("", "/image", "/thumbnail"):
            assert client.get(f"/v1/items/{keys.encode('image', str(path))}{what}").status_code == 404, path
    for path in (
        "/../server/app.py",
        "/..%2fserver/app.py",
        "/docs/..%2f..%2fapp.py",
        "//etc/passwd",
        "/%2e%2e/app.py",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 or "<!doctype html>" in answer.text.lower(), path
        assert "create_app" not in answer.text


def test_what_took_a_files_place_is_not_served(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 4)
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    private = tmp_path / "private.jpg"
    private.write_bytes(jpeg((50, 50), "black", "ring"))
    with serving.client(index) as client:
        (linked, link), (swapped, other), (gone, third), (piped, fourth) = keys_of(client, k=4)
        link.unlink()
        link.symlink_to(secret)
        other.unlink()
        other.symlink_to(private)  # a picture, and not the one that was indexed
        third.unlink()
        fourth.unlink()
        os.mkfifo(fourth)
        for what in ("image", "thumbnail"):
            for key, status in ((linked, 409), (swapped, 409), (gone, 404), (piped, 404)):
                answer = client.get(f"/v1/items/{key}/{what}")
                assert answer.status_code == status, answer.text
                assert SECRET not in answer.text and answer.json()["error"]["message"]


def test_a_moved_folder_with_the_same_picture_still_is_it(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 2)
    with serving.client(index) as client:
        ((key, path), _) = keys_of(client, k=2)
        elsewhere = tmp_path / "elsewhere.jpg"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert client.get(f"/v1/items/{key}/image").content == elsewhere.read_bytes()


def test_paths_that_are_added_lie_under_the_roots(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(jpeg((64, 64), "green", "ring"))
    link = tmp_path / "photos" / "link"
    link.symlink_to(outside)
    with serving.client(index, Settings(upload_dir=tmp_path / "up")) as client:
        photos = tmp_path / "photos"
        beside = (f"{photos}/../outside", f"{photos}X", "/", "/etc/passwd")
        for path in (outside / "a.jpg", link / "a.jpg", link, *beside):
            answer = client.post("/v1/items", json={"paths": [str(path)]})
            assert answer.status_code == 403, answer.text
        assert client.get("/v1/index").json()["generation"] == 1


def test_read_only(index: Path) -> None:
    with serving.client(index, Settings(read_only=True, warm=False)) as client:
        ((key, path), *_) = keys_of(client)
        for answer in (
            client.post("/v1/items", json={"paths": [str(path)]}),
            client.post("/v1/items", files={"image": jpeg()}),
            client.delete(f"/v1/items/{key}"),
        ):
            assert answer.status_code == 403 and "read-only" in answer.json()["error"]["message"]
        assert client.get("/v1/index").json()["read_only"] is True


def test_nothing_is_fetched(client: TestClient) -> None:
    answer = client.post("/knn-service", json={"image_url": "http://127.0.0.1:9/x.jpg", "num_images": 1})
    assert answer.status_code == 400 and "fetches nothing" in answer.json()["error"]["message"]
    for field in ("url", "image_url"):
        assert client.post("/v1/search", json={"terms": [{field: "http://127.0.0.1:9/x.jpg"}]}).status_code == 422


# -- who may ask -------------------------------------------------------------------------------------------------


def test_beyond_loopback_a_token_is_needed() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UsageError, match="--token"):
            Settings(host=host)
        assert Settings(host=host, token=TOKEN).requests_a_second == 100
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert Settings(host=host).requests_a_second == 0
    with pytest.raises(UsageError, match="8 ASCII"):
        Settings(token="short")


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


# -- sizes -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.01])
def test_a_pool_that_ends_under_a_request_is_started_again(moment: float) -> None:
    """Whether a process has begun with it or not: no request waits for ever."""
    decoders = Decoders(1, timeout_s=20, max_megapixels=10)

    async def widths() -> list[int]:
        under_way = [asyncio.create_task(decoders.pixels(jpeg((20 + n, 10)), PixelSpec(8))) for n in range(4)]
        await asyncio.sleep(moment)
        await asyncio.to_thread(decoders.close)
        return [one.width for one in await asyncio.wait_for(asyncio.gather(*under_way), 60)]

    try:
        assert asyncio.run(widths()) == [20, 21, 22, 23]
    finally:
        decoders.close()


def test_a_picture_that_kills_its_decoder_costs_only_itself() -> None:
    decoders = Decoders(1, timeout_s=1.5, max_megapixels=10, decoder=naughty_decode)

    async def told(data: bytes) -> str:
        try:
            return str((await decoders.pixels(data, PixelSpec(8))).width)
        except ImageError as error:
            return error.reason

    async def all_of_them() -> list[str]:
        return [await told(data) for data in (jpeg((20, 10)), CRASH, EXIT, jpeg((30, 10)), HANG, jpeg((40, 10)))]

    try:
        expected = ["20", "decoder crashed", "decoder crashed", "30", "decoding timed out", "40"]
        assert asyncio.run(all_of_them()) == expected
    finally:
        decoders.close()


# -- the log -----------------------------------------------------------------------------------------------------


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


def test_a_defect_tells_a_client_nothing(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(serving.open_engine(index), Settings(warm=False))
    with TestClient(app, base_url="http://localhost") as client:
        app.state.service._search = lambda name, some: 1 / 0
        answer = client.post("/v1/search", json={"text": "x"})
        assert answer.status_code == 500
        assert answer.json() == {"error": {"type": "internal", "message": "a defect of the server; its log says more"}}
        assert answer.headers["content-security-policy"] == CSP
    assert "ZeroDivisionError" in caplog.text


def test_markup_in_captions_and_names_stays_data(tmp_path: Path) -> None:
    from brivl_search.ingest.run import BuildOptions, build_index
    from tests.support.pictures import write_lines
    from tests.support.stub import Silent

    script = "<script>alert(1)</script>"
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "<img src=x onerror=alert(1)>.jpg").write_bytes(jpeg())
    write_lines(folder / "captions.jsonl", [{"image": "<img src=x onerror=alert(1)>.jpg", "en": script}])
    build_index([folder], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        answer = client.post("/v1/search", json={"text": "x", "target": "texts"})
        assert answer.headers["content-type"] == "application/json" and answer.json()["hits"][0]["text"] == script
        image = client.get(f"/v1/items/{answer.json()['hits'][0]['key']}/image")
        assert image.headers["content-type"] == "image/jpeg"
        assert "<" not in image.headers["content-disposition"]


def test_a_file_that_is_a_page_and_a_picture_is_sent_as_a_picture() -> None:
    from brivl_search.server.answers.kinds import media_type

    assert media_type(b"GIF89a<script>") == "image/gif"
    assert media_type(b"<!doctype html>") == "application/octet-stream"
    assert media_type(json.dumps({}).encode()) == "application/octet-stream"
