"""Vectors, pairs and classes over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

import numpy as np
from starlette.testclient import TestClient

from brivl_search.server import Settings, create_app
from tests.support import serving
from tests.support.serving import RED, search
from tests.support.stub import StubEncoder


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


def test_a_template_cannot_make_a_text_without_end(client: TestClient) -> None:
    files = {"image": RED}
    request = {"labels": ["x" * 900], "templates": ["{}" * 400]}
    answer = client.post("/v1/classify", files=files, data={"request": json.dumps(request)})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "text_too_long"
    request = {"labels": [f"label {n}" for n in range(5000)], "templates": ["{}"]}
    assert client.post("/v1/classify", files=files, data={"request": json.dumps(request)}).status_code == 413
