"""Texts over HTTP: what is not UTF-8 is refused with a code, unknown words are named in the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.search.engine import Engine
from brivl_search.server import create_app
from tests.support.serving import MATCH, RED
from tests.support.words import WordEncoder


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[TestClient]:
    engine = Engine(index)
    encoder = WordEncoder()
    encoder.calibration = MATCH
    engine.encoder = encoder
    with TestClient(create_app(engine), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.mark.parametrize(
    ("address", "encoding"),
    [
        ("/text_query?text=%B9%B7", "gb18030"),
        ("/text_query?text=a&text=%FF", ""),
        ("/text_query?text=caf%E9", "cp1252"),
        ("/text_query?te%B9%B7xt=a", "gb18030"),
        ("/v1/index?x=%B9%B7", "gb18030"),
    ],
)
def test_an_address_that_is_not_utf8(client: TestClient, address: str, encoding: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "not_utf8" and error["details"]["encoding"] == encoding
    assert client.get("/text_query?text=%E7%8B%97%20+%2B").status_code == 200


@pytest.mark.parametrize("route", ["/v1/search", "/v1/embed/text", "/knn-service"])
def test_a_body_that_is_not_utf8(client: TestClient, route: str) -> None:
    for codec in ("gbk", "utf-16", "big5"):
        answer = client.post(
            route, content='{"text": "狗"}'.encode(codec), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "not_utf8", codec
    for text in ('"\\ud83d"', '"\\udcb9\\udcb7"'):
        body = f'{{"text": {text}}}' if route != "/v1/embed/text" else f'{{"texts": [{text}]}}'
        answer = client.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), text


def test_a_part_of_a_form_that_is_not_utf8(client: TestClient) -> None:
    part = json.dumps({"text": "红色圆形的狗"}, ensure_ascii=False)
    for name in (None, "request.json"):
        answer = client.post(
            "/v1/search", files={"request": (name, part.encode("gbk")), "image": ("a.png", RED, "image/png")}
        )
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "not_utf8"
        good = client.post("/v1/search", files={"request": (name, part.encode()), "image": ("a.png", RED, "image/png")})
        assert good.status_code == 200
    latin = json.dumps({"text": "un café à Zürich"}, ensure_ascii=False).encode()
    assert client.post("/v1/search", files={"request": (None, latin)}).status_code == 200


def test_a_search_names_unknown_words_and_withholds_the_match(client: TestClient) -> None:
    known = client.post("/v1/search", json={"text": "红色圆形", "k": 3}).json()
    assert known["unknown_words"] == [] and all(hit["match"] is not None for hit in known["hits"])
    none = client.post("/v1/search", json={"text": "собака 🐶", "k": 3}).json()
    assert none["unknown_words"] == ["собака", "🐶"] and all(hit["match"] is None for hit in none["hits"])
    some = client.post("/v1/search", json={"text": "红色圆形 🐶", "k": 3}).json()
    assert some["unknown_words"] == ["🐶"] and all(hit["match"] is not None for hit in some["hits"])
    added = client.post("/v1/search", json={"text": "红色圆形", "terms": [{"text": "собака", "weight": -1}], "k": 3})
    assert added.json()["unknown_words"] == ["собака"]
    refused = client.post("/v1/search", json={"text": "собака", "min_match": 0.5})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "no_match"
    assert client.post("/v1/search", json={"text": "\u200b"}).json()["error"]["code"] == "empty_text"


def test_routes_of_other_servers_name_unknown_words(client: TestClient) -> None:
    for text, words in (("狗", []), ("狗🐶", ["🐶"]), ("собака", ["собака"]), ("ｄｏｇ", [])):
        assert client.get("/text_query", params={"text": text}).json()["unknown_words"] == words
        rows = client.post("/knn-service", json={"text": text, "num_images": 2}).json()
        assert len(rows) == 2 and all(row.get("unknown_words", []) == words for row in rows)
    rows = client.post("/knn-service", json={"image": base64.b64encode(RED).decode(), "num_images": 2}).json()
    assert not any("unknown_words" in row for row in rows)


def test_vectors_pairs_and_labels_name_unknown_words(client: TestClient) -> None:
    found = client.post("/v1/embed/text", json={"texts": ["ｄｏｇ", "dog", "🐶"]}).json()
    assert found["unknown_words"] == [[], [], ["🐶"]] and found["vectors"][0] == found["vectors"][1]
    picture = base64.b64encode(RED).decode()
    pairs = [{"text": text, "base64": picture} for text in ("红色圆形", "собака", "红色圆形🐶")]
    rows = client.post("/v1/match", json={"pairs": pairs}).json()["pairs"]
    assert [row["unknown_words"] for row in rows] == [[], ["собака"], ["🐶"]]
    assert [row["match"] is None for row in rows] == [False, True, False]
    asked = {"labels": ["狗", ["猫", "кот"]], "images": [{"base64": picture}]}
    assert client.post("/v1/classify", json=asked).json()["unknown_words"] == {"猫": ["кот"]}
    assert client.post("/v1/classify", json={**asked, "labels": ["狗", "\u200b"]}).status_code == 400
