"""A search that asks for the server's matcher, and a server that has none."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.encoders import matching
from brivl_search.search.engine import SearchOptions
from brivl_search.server import Settings
from tests.support import serving
from tests.support.matchers import StubMatcher
from tests.support.pictures import jpeg
from tests.support.serving import search


def test_hits_come_in_the_matchers_order(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "load_matcher", lambda name, encoder, **options: StubMatcher(encoder))
    with serving.client(index, Settings(warm=False, rerank_with="stub", rerank_top=6)) as client:
        about = client.get("/v1/index").json()["matcher"]
        assert about == {"name": "stub-matcher", "fingerprint": "matcher-stub", "top": 6}
        options = SearchOptions(10, rerank_with="stub", rerank_top=6)
        expected = serving.open_engine(index).by_text("a red circle", options)
        answer = client.post("/v1/search", json={"text": "a red circle", "rerank": True}).json()
        assert answer["reranked"] == about
        assert [hit["path"] for hit in answer["hits"]] == [hit.path for hit in expected]
        assert [hit["rerank"] is None for hit in answer["hits"]] == [False] * 6 + [True] * 4
        second = client.post("/v1/search", json={"text": "a red circle", "rerank": True, "k": 4, "offset": 3}).json()
        assert [hit["path"] for hit in second["hits"]] == [hit.path for hit in expected[3:7]]
        plain = client.post("/v1/search", json={"text": "a red circle"}).json()
        assert plain["reranked"] is None and all(hit["rerank"] is None for hit in plain["hits"])
        caption = client.post("/v1/search", json={"text": "circle", "target": "texts"}).json()["hits"][0]["key"]
        for wrong in (
            {"text": "a red circle", "terms": [{"text": "dog"}]},
            {"text": "a red circle", "target": "texts"},
            {"terms": [{"key": plain["hits"][0]["key"]}], "target": "images"},
            {"terms": [{"key": caption}], "target": "images"},
            {"terms": [{"vector": [1.0] * client.get("/v1/index").json()["encoder"]["dim"]}], "target": "texts"},
        ):
            answer = client.post("/v1/search", json={**wrong, "rerank": True})
            assert answer.status_code == 400 and answer.json()["error"]["code"] == "no_rerank"


def test_a_picture_on_captions(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "load_matcher", lambda name, encoder, **options: StubMatcher(encoder))
    with serving.client(index, Settings(warm=False, rerank_with="stub", rerank_top=6)) as client:
        photo = client.post("/v1/search", json={"text": "a red circle", "k": 1}).json()["hits"][0]
        content = jpeg(colour="purple", shape="triangle")
        (tmp_path / "a.jpg").write_bytes(content)
        engine, options = serving.open_engine(index), SearchOptions(10, rerank_with="stub", rerank_top=6)
        for term, source in (
            ({"key": photo["key"]}, photo["path"]),
            ({"base64": base64.b64encode(content).decode()}, str(tmp_path / "a.jpg")),
        ):
            asked = {"terms": [term], "target": "texts", "rerank": True}
            answer = client.post("/v1/search", json=asked).json()
            expected = engine.by_image(source, options, target="text")
            assert [hit["text"] for hit in answer["hits"]] == [hit.text for hit in expected]
            assert [hit["rerank"] is None for hit in answer["hits"]] == [False] * 6 + [True] * 4
            assert answer["reranked"]["name"] == "stub-matcher" and answer["target"] == "texts"
        files = {"request": (None, '{"target": "texts", "rerank": true}'), "image": ("a.jpg", content)}
        assert client.post("/v1/search", files=files).json()["hits"] == answer["hits"]
        broken = {"terms": [{"base64": "AAAA"}], "target": "texts", "rerank": True}
        answer = client.post("/v1/search", json=broken)
        assert answer.status_code == 400 and "error" in answer.json()


def test_a_server_without_a_matcher(client: TestClient) -> None:
    assert client.get("/v1/index").json()["matcher"] is None
    assert search(client, text="a red circle", rerank=False)
    answer = client.post("/v1/search", json={"text": "a red circle", "rerank": True})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "no_matcher"
