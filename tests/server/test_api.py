"""The HTTP API: what routes answer. Security has its own tests."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from brivl_search.encoders.base import Origin
from brivl_search.errors import IndexIncompatibleError
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import Query, Term
from brivl_search.server import Settings, create_app
from brivl_search.server.protocol import keys
from tests.support import serving
from tests.support.pictures import bad_bytes, draw, encoded, jpeg, write_corpus, write_lines
from tests.support.stub import Silent, StubEncoder

RED = encoded(draw("red", "circle"), "PNG")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[TestClient]:
    with serving.client(index) as client:
        yield client


def search(client: TestClient, **request: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/search", json=request)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def refused(client: TestClient, **request: Any) -> tuple[int, str]:
    answer = client.post("/v1/search", json=request)
    assert answer.status_code >= 400
    return answer.status_code, answer.json()["error"]["message"]


def test_a_search_is_the_engines(client: TestClient, index: Path) -> None:
    hits = search(client, text="a red circle", k=4)
    expected = serving.open_engine(index).by_text("a red circle", SearchOptions(4))
    assert [hit["path"] for hit in hits] == [hit.path for hit in expected]
    assert [hit["score"] for hit in hits] == [round(hit.score, 6) for hit in expected]
    first = hits[0]
    assert first["match"] == round(serving.MATCH.probability(expected[0].score), 4)
    assert (first["rank"], first["kind"], first["width"], first["height"]) == (1, "image", 96, 96)
    assert first["image_key"] == first["key"] and first["text"] is None and first["duplicates"] == 0


def test_uploads_find_captions_and_weigh_in(client: TestClient, index: Path) -> None:
    answer = client.post("/v1/search", files={"image": ("x.png", RED)}, data={"request": json.dumps({"k": 3})}).json()
    assert answer["target"] == "texts" and "red" in answer["hits"][0]["text"]
    caption = answer["hits"][0]
    assert "red-circle" in caption["path"] and caption["field"] in ("en", "zh")
    assert client.get(f"/v1/items/{caption['image_key']}").json()["kind"] == "image"
    request = {"text": "a blue ring", "terms": [{"image": 0, "weight": -0.5}], "k": 3}
    answer = client.post("/v1/search", files=[("image", RED)], data={"request": json.dumps(request)}).json()
    expected = serving.open_engine(index).query(Query((Term("a blue ring"), Term(RED, "image", -0.5)), 3))
    assert [hit["path"] for hit in answer["hits"]] == [hit.path for hit in expected]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    by_base64 = {"terms": [{"base64": base64.b64encode(RED).decode()}], "target": "images", "k": 1}
    assert "red-circle" in search(client, **by_base64)[0]["path"]


def test_more_like_this_and_vectors(client: TestClient) -> None:
    (first,) = search(client, text="a green ring", k=1)
    alike = search(client, terms=[{"key": first["key"]}], target="images", k=2)
    assert alike[0]["key"] == first["key"] and alike[0]["score"] == pytest.approx(1, abs=1e-3)
    assert alike[0]["match"] is None
    vector = client.post("/v1/embed/text", json={"texts": ["a green ring"]}).json()["vectors"][0]
    (same,) = search(client, terms=[{"vector": [3 * x for x in vector]}], k=1)
    assert same["key"] == first["key"] and same["match"] is None
    assert refused(client, terms=[{"vector": [1.0, 2.0]}])[0] == 422
    assert refused(client, terms=[{"key": "i" + "A" * 20}])[0] == 404


def test_pages_filters_and_folding(client: TestClient) -> None:
    whole = search(client, text="a red circle", k=30)
    pages = [search(client, text="a red circle", k=12, offset=at) for at in (0, 12, 24)]
    assert [hit["key"] for page in pages for hit in page] == [hit["key"] for hit in whole]
    assert client.post("/v1/search", json={"text": "x", "k": 12, "offset": 24}).json()["more"] is False
    assert client.post("/v1/search", json={"text": "x", "k": 12}).json()["more"] is True
    assert all("-red-" in hit["path"] for hit in search(client, text="dog", filters={"glob": ["*-red-*"]}, k=30))
    assert len(search(client, text="dog", filters={"glob": ["*-red-*", "*-blue-*"]}, k=30)) == 10
    assert len(search(client, text="dog", filters={"where": {"width": "96"}, "min_size": "96"}, k=40)) == 30
    assert search(client, text="dog", filters={"min_size": "97x97"}) == []
    folded = search(client, text="a red circle", dedupe=0.5, k=3)
    assert folded[0]["duplicates"] == len(folded[0]["duplicate_keys"]) > 0
    assert all(hit["match"] >= 0.9 for hit in search(client, text="a red circle", min_match=0.9, k=30))
    assert len(search(client, text="a red circle", exact=True, target="texts", k=120)) == 120


def test_what_cannot_be_searched_is_told(client: TestClient) -> None:
    assert refused(client) == (
        400, "nothing to look for: give `text`, an image, or a term with a weight above 0"
    )  # fmt: skip
    assert refused(client, text="  ")[0] == 400
    assert refused(client, text="x", k=0)[0] == 422
    assert refused(client, text="x", k=900, offset=200)[0] == 413
    assert refused(client, text="x" * 2001)[0] == 413
    assert refused(client, terms=[{"text": "x"}] * 17)[0] == 413
    assert refused(client, terms=[{"text": "x", "key": "y"}])[0] == 422
    assert refused(client, terms=[{"image": 0}]) == (
        422, "image 0: the request holds 0 `image` parts, counted from 0"
    )  # fmt: skip
    assert refused(client, text="x", terms=[{"text": "x", "weight": -1}]) == (
        400, "the terms cancel each other out: change a weight"
    )  # fmt: skip
    status, message = refused(client, text="x", terms=[{"text": "y"}], min_match=0.5)
    assert status == 400 and "`min_match`" in message and "--" not in message
    status, message = refused(client, text="x", filters={"where": {"nope": "1"}})
    assert status == 400 and "nope" in message
    assert refused(client, text="x", filters={"after": "yesterday"})[0] == 400
    assert refused(client, text="x", colour="red")[0] == 422
    assert client.post("/v1/search", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    assert client.post("/v1/search", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/v1/search", data={"other": "1"}, files={"image": RED}).status_code == 422
    for content, reason in bad_bytes().values():
        answer = client.post("/v1/search", files={"image": ("x.jpg", content)})
        assert answer.status_code in (400, 413) and reason in answer.json()["error"]["message"]


def test_items(client: TestClient, index: Path) -> None:
    (hit,) = search(client, text="a black square", k=1)
    item = client.get(f"/v1/items/{hit['key']}").json()
    file = Path(hit["path"])
    assert item["path"] == hit["path"] and item["size"] == file.stat().st_size and item["content_type"] == "image/jpeg"
    assert item["modified"].endswith("Z") and item["width"] == 96
    assert [caption["field"] for caption in item["captions"]] == ["en", "en", "zh", "zh"]
    caption = client.get(f"/v1/items/{item['captions'][0]['key']}").json()
    assert caption["kind"] == "text" and caption["image_key"] == hit["key"] and caption["text"] == "a black square"
    assert caption["captions"] == item["captions"]
    image = client.get(f"/v1/items/{hit['key']}/image")
    assert image.content == file.read_bytes() and image.headers["content-type"] == "image/jpeg"
    assert "content-encoding" not in image.headers and "gzip" in client.get("/v1/map").headers["content-encoding"]
    for key in (hit["key"], caption["key"]):
        small = client.get(f"/v1/items/{key}/thumbnail", params={"size": 128})
        assert small.headers["content-type"] == "image/jpeg" and small.content[:3] == b"\xff\xd8\xff"
        again = client.get(f"/v1/items/{key}/thumbnail?size=128", headers={"If-None-Match": small.headers["etag"]})
        assert again.status_code == 304 and not again.content
    assert client.get(f"/v1/items/{hit['key']}/thumbnail?size=5000").status_code == 422
    assert client.get("/v1/items/iAAAA").status_code == 404


def test_thumbnails_shrink(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 1, size=(1200, 600))
    build_index([tmp_path / "photos"], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        (hit,) = search(client, text="x")
        for side in (128, 256, 512, 1024):
            answer = client.get(f"/v1/items/{hit['key']}/thumbnail?size={side}")
            (tmp_path / "t.jpg").write_bytes(answer.content)
            with Image.open(tmp_path / "t.jpg") as image:
                assert image.size == (side, side // 2)


def test_keys_of_long_and_strange_paths() -> None:
    for key in ("/a/b.jpg", "/一只狗.jpg", "/bad\udcff.jpg", "/" + "x" * 2000, ""):
        name = keys.encode("image", key)
        assert name.isascii() and not set(name) & set("/+=?#&") and len(name) <= 700
        decoded = keys.decode(name)
        assert decoded is not None and decoded[0] == "image"
        assert decoded[1] == key if len(key) < 480 else isinstance(decoded[1], bytes)
    for bad in ("", "i*", "x123", "I123", "iA", "i" + "A" * 1001, "iÄ"):
        assert keys.decode(bad) is None or bad == "iA"


def test_an_item_of_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 3)
    write_corpus(folder, 2)
    build_index([folder], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        hit = search(client, text="a red circle", k=1)[0]
        assert hit["key"].startswith("I") and len(hit["key"]) < 60
        item = client.get(f"/v1/items/{hit['key']}").json()
        assert item["path"] == hit["path"] and len(item["captions"]) == 4
        assert client.get(f"/v1/items/{item['captions'][0]['key']}/image").content == Path(hit["path"]).read_bytes()


def test_vectors_pairs_classes(client: TestClient) -> None:
    stub = StubEncoder()
    answer = client.post("/v1/embed/text", json={"texts": ["a red circle", "红色圆形", "a red circle"]}).json()
    assert answer["dim"] == 32 and answer["encoder"] == "stub"
    assert np.allclose(answer["vectors"], stub.encode_texts(["a red circle", "红色圆形", "a red circle"]), atol=1e-6)
    picture = client.post("/v1/embed/image", files={"image": RED}).json()["vectors"][0]
    assert np.linalg.norm(picture) == pytest.approx(1, abs=1e-5)
    request = {"pairs": [{"text": "a red circle", "image": 0}, {"text": "a blue ring", "image": 0}]}
    pairs = client.post("/v1/match", files={"image": RED}, data={"request": json.dumps(request)}).json()["pairs"]
    text = np.asarray(answer["vectors"][0])
    assert pairs[0]["score"] == pytest.approx(float(text @ np.asarray(picture)), abs=1e-5)
    assert pairs[0]["match"] == pytest.approx(serving.MATCH.probability(pairs[0]["score"]), abs=1e-3)
    assert pairs[0]["match"] > pairs[1]["match"]
    request = {"labels": ["blue ring", ["red circle", "红色圆形"], "green cross"], "k": 2}
    guesses = client.post("/v1/classify", files={"image": RED}, data={"request": json.dumps(request)}).json()
    (guess,) = guesses["results"]
    assert guess["labels"][0]["label"] == "red circle" and len(guess["labels"]) == 2
    assert 0 < guess["labels"][1]["probability"] < guess["labels"][0]["probability"] <= 1
    for bad in (
        {"labels": ["a", "a"], "images": [{"image": 0}]}, {"labels": [" "]}, {"labels": ["a"], "templates": ["x"]}
    ):  # fmt: skip
        answer = client.post("/v1/classify", files={"image": RED}, data={"request": json.dumps(bad)})
        assert answer.status_code == 400, answer.text
    assert client.post("/v1/classify", json={"labels": ["a"]}).status_code == 400
    assert client.post("/v1/match", json={"pairs": []}).status_code == 422


def test_an_encoder_without_a_calibration(index: Path) -> None:
    engine = serving.open_engine(index)
    engine.encoder.calibration = None
    with TestClient(create_app(engine, Settings(warm=False)), base_url="http://localhost") as client:
        (hit,) = search(client, text="a red circle", k=1)
        assert hit["match"] is None
        pairs = client.post("/v1/match", json={"pairs": [{"text": "a red circle", "key": hit["key"]}]}).json()["pairs"]
        assert pairs[0]["match"] is None
        answer = client.post("/v1/classify", json={"labels": ["a", "b"], "images": [{"key": hit["key"]}]})
        assert answer.json()["results"][0]["labels"][0]["probability"] is None
        assert client.get("/v1/index").json()["encoder"]["match"] is False


def test_the_index_and_its_map(client: TestClient, index: Path) -> None:
    facts = client.get("/v1/index").json()
    assert facts["images"] == {"rows": 30, "kind": "exact"} and facts["texts"]["rows"] == 120
    assert facts["read_only"] is False and facts["uploads"] is False and facts["limits"]["max_k"] == 1000
    points = client.get("/v1/map").json()
    assert points["total"] == len(points["keys"]) == len(points["x"]) == len(points["y"]) == 30
    assert max(map(abs, points["x"])) == 1 == max(map(abs, points["y"]))
    assert client.get(f"/v1/items/{points['keys'][7]}").status_code == 200
    assert len(set(points["keys"])) == 30
    assert client.get("/v1/map").json() == points


def test_the_map_is_the_plane_of_most_variance() -> None:
    from brivl_search.server.answers.map import project

    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((500, 2)).astype(np.float32) * [3, 2]
    axes = np.linalg.qr(rng.standard_normal((16, 2)))[0].T
    plane = project((hidden @ axes + 0.01 * rng.standard_normal((500, 16))).astype(np.float32))
    for at in (0, 1):
        assert abs(np.corrcoef(plane[:, at], hidden[:, at])[0, 1]) > 0.99
        assert np.abs(plane[:, at]).max() == pytest.approx(1)
    assert project(np.ones((3, 8), np.float32)).tolist() == [[0, 0]] * 3


def test_a_new_generation_is_answered_from(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 6)
    with serving.client(index) as client:
        assert len(search(client, text="x", k=30)) == 6
        write_corpus(tmp_path / "photos", 9)
        build_index([tmp_path / "photos"], index, serving.encoder(), BuildOptions(workers=0), Silent())
        assert len(search(client, text="x", k=30)) == 9
        assert client.get("/v1/index").json()["generation"] == 2 and client.get("/v1/map").json()["total"] == 9
        other = StubEncoder(fingerprint="another")
        for file in index.glob("catalog.lmdb*"):
            file.unlink()
        for file in (index / "shards").iterdir():
            file.unlink()
        assert len(search(client, text="x", k=30)) == 9  # gone for the moment
        build_index([tmp_path / "photos"], index, other, BuildOptions(workers=0), Silent())
        answer = client.post("/v1/search", json={"text": "x"})
        assert answer.status_code == 503 and answer.json()["error"]["type"] == "index"
        assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200


def test_adding_and_removing(tmp_path: Path) -> None:
    index = serving.write_site(tmp_path, 6)
    uploads = tmp_path / "uploads"
    new = tmp_path / "photos" / "new.png"
    new.write_bytes(encoded(draw("yellow", "triangle", seed=5), "PNG"))
    with serving.client(index, Settings(upload_dir=uploads)) as client:
        answer = client.post(
            "/v1/items", json={"paths": [str(new), str(tmp_path / "photos" / "captions.jsonl")]}
        ).json()
        assert answer["embedded"] == 1 and answer["generation"] == 2 and len(answer["keys"]) == 1
        assert search(client, terms=[{"key": answer["keys"][0]}], target="images", k=1)[0]["path"] == str(new)
        picture = jpeg((120, 80), "purple", "cross")
        answer = client.post("/v1/items", files={"image": ("../../evil.php", picture)}).json()
        (key,) = answer["keys"]
        (kept,) = [path for path in uploads.rglob("*") if path.is_file()]
        assert kept.suffix == ".jpg" and kept.read_bytes() == picture
        assert client.get(f"/v1/items/{key}/image").content == picture
        assert client.post("/v1/items", files={"image": b"no picture"}).status_code == 400
        assert len([path for path in uploads.rglob("*") if path.is_file()]) == 1
        removed = client.delete(f"/v1/items/{key}").json()
        assert removed["images"] == 1 and not kept.exists()
        assert client.get(f"/v1/items/{key}/thumbnail").status_code == 404
        (red,) = search(client, text="a red circle", k=1)
        removed = client.delete(f"/v1/items/{red['key']}").json()
        assert removed == {"generation": 5, "images": 1, "captions": 4} and Path(red["path"]).exists()
        assert client.delete(f"/v1/items/{red['key']}").status_code == 404
        assert client.post("/v1/items", json={"paths": []}).status_code == 400
        assert client.post("/v1/items", json={"paths": [str(tmp_path / "photos" / "none.jpg")]}).status_code == 400


def test_an_encoder_of_regions_learns_whose_pixels_it_is_given(tmp_path: Path) -> None:
    """Boxes of a file count for what the server adds, as they do for the command line."""

    class OfRegions(StubEncoder):
        asked: list[Origin] = []  # noqa: RUF012 - the test reads it

        def encode_pictures(self, pixels: np.ndarray, origins: list[Origin]) -> np.ndarray:
            self.asked.extend(origins)
            return self.encode_images(pixels)

    index = serving.write_site(tmp_path, 3)
    new = tmp_path / "photos" / "new.png"
    new.write_bytes(encoded(draw("yellow", "triangle", size=(70, 50)), "PNG"))
    engine = Engine(index)
    engine.encoder = OfRegions()
    with TestClient(create_app(engine, Settings(decoders=1)), base_url="http://127.0.0.1:8000") as client:
        assert client.post("/v1/items", json={"paths": [str(new)]}).json()["embedded"] == 1
        assert client.post("/v1/search", files={"image": RED}).status_code == 200
    assert [(one.path, one.width, one.height) for one in OfRegions.asked[-2:]] == [(str(new), 70, 50), ("", 0, 0)]


def test_another_build_is_writing(tmp_path: Path) -> None:
    from brivl_search.index.lock import WriterLock

    index = serving.write_site(tmp_path, 3)
    with serving.client(index) as client:
        lock = WriterLock(index)
        try:
            answer = client.post("/v1/items", json={"paths": [str(tmp_path / "photos")]})
        finally:
            lock.release()
        assert answer.status_code == 409 and answer.json()["error"]["type"] == "conflict"


def test_metrics(client: TestClient) -> None:
    search(client, text="a red circle")
    search(client, text="a red circle", filters={"glob": ["*-red-*"]})
    client.get("/v1/items/iAAAA")
    text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for step in ("encode", "search", "rerank", "records"):
        assert float(values[f'brivl_step_seconds_count{{step="{step}"}}']) >= 1
        assert 0 < float(values[f'brivl_step_seconds_sum{{step="{step}"}}']) < 5
    assert values['brivl_index_rows{modality="image"}'] == "30.0"
    assert values['brivl_queue_length{worker="texts"}'] == "0.0"
    assert float(values['brivl_requests_total{method="POST",route="/v1/search",status="200"}']) >= 2
    assert "/v1/items/{key}" in text and "iAAAA" not in text


def test_the_document_names_every_route_with_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/search", "/v1/embed/text", "/v1/embed/image", "/v1/match", "/v1/classify", "/v1/items", "/v1/items/{key}",
        "/v1/items/{key}/thumbnail", "/v1/items/{key}/image", "/v1/map", "/v1/index", "/v1/session", "/healthz",
        "/readyz", "/metrics", "/image_query", "/text_query", "/knn-service", "/metadata", "/indices-list",
    }  # fmt: skip
    asked = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    for example in asked["application/json"]["examples"].values():
        assert client.post("/v1/search", json=example["value"]).status_code == 200
    assert client.get("/docs/").status_code == 200 and client.get("/docs/docs.js").status_code == 200


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    name = os.path.join(os.fsencode(tmp_path), b"photos", b"bad\xff.png")
    try:
        Path(os.fsdecode(name)).write_bytes(RED)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    write_lines(tmp_path / "photos" / "captions.jsonl", [])
    build_index([tmp_path / "photos"], tmp_path / "index", serving.encoder(), BuildOptions(workers=0), Silent())
    with serving.client(tmp_path / "index") as client:
        (hit,) = search(client, text="x")
        assert client.get(f"/v1/items/{hit['key']}/image").content == RED
        assert client.get(f"/v1/items/{hit['key']}").json()["path"].endswith("bad\udcff.png")


def test_a_server_over_an_index_of_another_encoder_is_not_ready(index: Path) -> None:
    engine = Engine(index, encoder="brivl-mini")
    with TestClient(create_app(engine, Settings(warm=False)), base_url="http://localhost") as client:
        answer = client.post("/v1/search", json={"text": "x"})
        assert answer.status_code == 503 and "fingerprint" in answer.json()["error"]["message"]
        assert client.get("/readyz").status_code == 503
    with pytest.raises(IndexIncompatibleError):
        engine.encoder  # noqa: B018
