"""Clients of other servers: the former WenLan API, and clip-retrieval's own client, run as it is published."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.server import create_app
from tests.support import serving
from tests.support.serving import RED
from tests.support.stub import StubEncoder

# What a user of clip-retrieval writes. Its package pulls in torch and more; the client itself needs `requests` alone.
USE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("clip_client", sys.argv[1])
clip_client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clip_client)
client = clip_client.ClipClient(
    url=sys.argv[2] + "/knn-service", indice_name="index", modality=clip_client.Modality.IMAGE, num_images=4
)
texts = clip_client.ClipClient(
    url=sys.argv[2] + "/knn-service", indice_name="index", modality=clip_client.Modality.TEXT, num_images=2
)
print(json.dumps({
    "text": client.query(text="a red circle"),
    "image": client.query(image=sys.argv[3]),
    "embedding": client.query(embedding_input=json.loads(sys.argv[4])),
    "captions": texts.query(image=sys.argv[3]),
}))
"""


def test_wenlan(client: TestClient) -> None:
    answer = client.get("/text_query", params={"text": "红色圆形"}).json()
    assert list(answer) == ["emb_dim", "emb_type", "embedding", "unknown_words"] and answer["unknown_words"] == []
    assert answer["emb_dim"] == len(answer["embedding"]) == 32 and answer["emb_type"] == "text"
    assert np.allclose(answer["embedding"], StubEncoder().encode_texts(["红色圆形"])[0], atol=1e-6)
    answer = client.post("/image_query", files={"image": ("a.png", RED)}).json()
    expected = client.post("/v1/embed/image", files={"image": RED}).json()["vectors"][0]
    assert answer == {"emb_dim": 32, "emb_type": "image", "embedding": expected}
    assert client.get("/text_query").status_code == 422 and client.get("/text_query?text=%20").status_code == 400
    assert client.post("/image_query", data={"x": "1"}, files={"other": RED}).status_code == 400
    assert client.post("/image_query", json={}).status_code == 415


def test_knn_service(client: TestClient) -> None:
    asked = {"text": "a red circle", "modality": "image", "num_images": 3, "indice_name": "index", "use_mclip": False}
    rows = client.post("/knn-service", content=json.dumps(asked)).json()
    hits = client.post("/v1/search", json={"text": "a red circle", "k": 3}).json()["hits"]
    assert [row["similarity"] for row in rows] == [hit["score"] for hit in hits]
    assert [row["key"] for row in rows] == [hit["key"] for hit in hits]
    assert rows[0]["caption"] in ("a red circle", "the picture shows a circle in red") and rows[0]["id"] < 2**53
    assert client.get(rows[0]["url"]).content == Path(rows[0]["image_path"]).read_bytes()
    asked = {"image": base64.b64encode(RED).decode(), "modality": "text", "num_images": 2, "deduplicate": True}
    captions = client.post("/knn-service", json=asked).json()
    assert "red" in captions[0]["caption"] and captions[0]["id"] % 2 == 1
    metadata = client.post("/metadata", json={"ids": [captions[0]["id"], rows[0]["id"], 7], "indice_name": "index"})
    assert [row["id"] for row in metadata.json()] == [captions[0]["id"], rows[0]["id"]]
    assert metadata.json()[1]["metadata"]["image_path"] == rows[0]["image_path"]
    assert client.get("/indices-list").json() == ["index"]
    assert client.post("/knn-service", json={"num_images": 2}).status_code == 400
    assert client.post("/knn-service", json={"text": "x", "indice_name": "laion5B"}).status_code == 400
    assert client.post("/knn-service", json={"image": "no base64!", "num_images": 1}).status_code == 422


@pytest.fixture(scope="module")
def clip_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's module as PyPI has it, in a folder of its own and without clip-retrieval's dependencies."""
    if importlib.util.find_spec("requests") is None:
        pytest.skip("clip-retrieval's client needs requests")
    folder = tmp_path_factory.mktemp("clip-retrieval")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            [*command, "--target", str(folder), "clip-retrieval==2.45.0"], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        pytest.skip("clip-retrieval does not install here: pip took over a minute")
    if done.returncode:
        pytest.skip(f"clip-retrieval does not install here: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "clip_retrieval" / "clip_client.py"


def test_a_real_clip_client(index: Path, clip_client: Path, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    picture.write_bytes(RED)
    vector = json.dumps(StubEncoder().encode_texts(["a black square"])[0].tolist())
    with serving.running(create_app(serving.open_engine(index))) as address:
        done = subprocess.run(
            [sys.executable, "-I", "-c", USE, str(clip_client), address, str(picture), vector],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert "red-circle" in answers["text"][0]["image_path"] and "red-circle" in answers["image"][0]["image_path"]
    assert "black-square" in answers["embedding"][0]["image_path"]
    assert 1 <= len(answers["captions"]) <= 2 and "red" in answers["captions"][0]["caption"]
    assert all({"id", "similarity", "url", "caption"} <= set(row) for rows in answers.values() for row in rows)
