"""The OpenAPI document is complete, and true as far as schemathesis can tell in a few seconds.

For longer: `python -m tests.support.schema_fuzz`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

from starlette.testclient import TestClient


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


@pytest.mark.slow
def test_no_answer_is_a_defect(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="pip install -e '.[test]'")
    from tests.support.schema_fuzz import fuzz

    statuses = fuzz(tmp_path, 10, seed=True)
    assert not any(name.rpartition(" ")[2].startswith("5") for name in statuses)
    found = {name.rpartition(" ")[0] for name in statuses if name.endswith(" 200")}
    assert {"GET /v1/items/{key}", "GET /v1/items/{key}/thumbnail", "DELETE /v1/items/{key}", "GET /v1/map"} <= found
