"""What is searched, page by page, and what cannot be."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.search.engine import SearchOptions
from brivl_search.search.queries import Query, Term
from tests.support import serving
from tests.support.pictures import bad_bytes
from tests.support.serving import RED, refused, search
from tests.support.stub import StubEncoder
from tests.support.sure import sure


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
    for length in (1e-300, 1e-20, 1e40, 1e300):
        (again,) = search(client, terms=[{"vector": [length * x for x in vector]}], k=1)
        assert (again["key"], again["score"]) == (same["key"], same["score"])
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


def test_whether_and_how_many_fit(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"text": "a red circle", "k": 3}
    plain = client.post("/v1/search", json=asked).json()
    assert plain["fits"] is True and plain["count"] is None
    assert client.post("/v1/search", json={"text": "a red circle", "target": "texts"}).json()["fits"] is None
    assert refused(client, **asked, count=True)[0] == 400  # a calibration of pairs alone
    monkeypatch.setattr(StubEncoder, "confidence", sure(), raising=False)
    found = client.post("/v1/search", json={**asked, "count": True}).json()
    whole = search(client, text="a red circle", k=30)
    assert found["count"]["rows"] == found["count"]["looked_at"] == 30
    assert found["count"]["fit"] == pytest.approx(sum(hit["match"] for hit in whole if hit["match"] >= 0.05), abs=0.06)
    assert found["hits"][0]["match"] == whole[0]["match"] and found["fits"] is (whole[0]["match"] >= 0.3)
    few = client.post("/v1/search", json={**asked, "count": True, "filters": {"glob": ["*-red-*"]}}).json()
    assert few["count"]["rows"] == 5
    page = client.post("/v1/search", json={"text": "a red circle", "k": 12, "offset": 12}).json()
    assert page["fits"] is found["fits"]  # of all hits up to here, not of this page


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


def error_of(client: TestClient, **request: Any) -> dict[str, Any]:
    error: dict[str, Any] = client.post("/v1/search", json=request).json()["error"]
    return error


def test_errors_have_codes_and_details(client: TestClient) -> None:
    assert error_of(client, text="x", filters={"where": {"splt": "test"}}) == {
        "type": "usage",
        "message": "`where`: unknown field 'splt' (there are: height, width)",
        "code": "unknown_field",
        "details": {"field": "splt", "fields": ["height", "width"]},
    }
    error = error_of(client, text="x", filters={"under": ["photos/typo"]})
    assert (error["type"], error["code"]) == ("usage", "no_such_folder") and error["details"]["folders"]
    error = error_of(client, text="x", filters={"after": "yesterday"})
    assert (error["code"], error["details"]) == ("bad_date", {"argument": "after", "value": "yesterday"})
    error = error_of(client, text="x", k=900, offset=200)
    assert (error["type"], error["code"], error["details"]) == (
        "too_large", "too_many_hits", {"asked": 1100, "limit": 1000}
    )  # fmt: skip
    error = error_of(client, text="x", colour="red")
    assert (error["type"], error["code"], error["details"]["where"]) == ("invalid", "invalid", "colour")
    error = error_of(client, terms=[{"base64": base64.b64encode(b"no picture").decode()}])
    assert (error["code"], error["details"]["reason"]) == ("picture", "not an image")
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"


def test_why_filters_let_nothing_through(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"text": "x", "filters": {"min_size": "97"}}).json()
    assert answer["hits"] == [] and answer["note"] == {
        "message": "`min_size` 97x97: the largest image has 96x96 pixels",
        "code": "filter_min_size",
        "details": {"min_size": "97x97", "largest": "96x96"},
    }
    for request in ({"text": "x", "filters": {"min_size": "96"}}, {"text": "x", "min_score": 1}, {"text": "x"}):
        assert client.post("/v1/search", json=request).json()["note"] is None


def test_nothing_is_fetched(client: TestClient) -> None:
    answer = client.post("/knn-service", json={"image_url": "http://127.0.0.1:9/x.jpg", "num_images": 1})
    assert answer.status_code == 400 and "fetches nothing" in answer.json()["error"]["message"]
    for field in ("url", "image_url"):
        assert client.post("/v1/search", json={"terms": [{field: "http://127.0.0.1:9/x.jpg"}]}).status_code == 422


def test_numbers_have_floors_and_caps(client: TestClient) -> None:
    for number in (1e-9, 0.49, 1.01, -1, 0, "0.9x"):
        asked = {"text": "x", "k": 1, "dedupe": number}
        status = client.post("/v1/search", json=asked).status_code
        assert (status == 200) == (number == 0), number  # 0 is false
    assert refused(client, text="x", k=100_000_000)[0] == 422
    assert refused(client, text="x", k=1_000_000)[0] == 413
    assert refused(client, text="x", offset=10**30)[0] == 422
    for name in ("k", "offset", "dedupe", "min_score", "min_match"):
        for content in ("NaN", "Infinity", "1e999", "1" * 5000, '"x"', "[]"):
            body = f'{{"text": "x", "{name}": {content}}}'
            answer = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, (name, content, answer.text)
    many = {"text": "x", "num_images": 1_000_000}
    assert client.post("/knn-service", json=many).status_code == 413
    assert client.post("/metadata", json={"ids": [1] * 1001}).status_code == 413
    assert client.post("/knn-service", json={"embedding_input": [1.0] * 70_000}).status_code == 422


def test_strange_json_is_no_defect(client: TestClient) -> None:
    strange = [
        "[" * 10_000,
        "[" * 10_000 + "]" * 10_000,
        '{"text": "\\ud800"}',
        '{"text": ' + "9" * 5000 + "}",
        '{"a":' * 5000,
    ]
    for path in ("/v1/search", "/v1/match", "/v1/classify", "/v1/items", "/v1/session", "/knn-service", "/metadata"):
        for content in strange:
            answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 403, 422), (path, content[:20], answer.text[:200])


def test_no_more_than_a_hundred_duplicates_are_listed(tmp_path: Path) -> None:
    from brivl_search.index import IndexWriter, Item

    stub = serving.encoder()
    vector = stub.encode_texts(["a red circle"])
    with IndexWriter(tmp_path / "index", encoder_name=stub.name, fingerprint=stub.fingerprint, dim=stub.dim) as writer:
        writer.stage_vectors("image", ["c"], vector)
        for number in range(700):
            writer.put("image", Item(f"/{number}.jpg", "c", record={"path": f"/{number}.jpg"}))
        writer.commit()
    with serving.client(tmp_path / "index") as client:
        (hit,) = search(client, text="a red circle", k=5, dedupe=0.5)
        assert hit["duplicates"] == len(hit["duplicate_keys"]) == 100
