"""The server about itself: its index, its metrics, whether it is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient

from brivl_search.errors import IndexIncompatibleError
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import Engine
from brivl_search.server import Settings, create_app
from tests.support import serving
from tests.support.pictures import write_corpus
from tests.support.serving import search
from tests.support.stub import Silent, StubEncoder


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


def test_a_server_over_an_index_of_another_encoder_is_not_ready(index: Path) -> None:
    engine = Engine(index, encoder="brivl-mini")
    with TestClient(create_app(engine, Settings(warm=False)), base_url="http://localhost") as client:
        answer = client.post("/v1/search", json={"text": "x"})
        assert answer.status_code == 503 and "fingerprint" in answer.json()["error"]["message"]
        assert client.get("/readyz").status_code == 503
    with pytest.raises(IndexIncompatibleError):
        engine.encoder  # noqa: B018
