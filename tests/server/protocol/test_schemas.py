"""The OpenAPI document is true, as far as schemathesis can tell in a few seconds (longer: `support/schema_fuzz.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="pip install -e '.[test]'")
pytest.importorskip("uvicorn", reason="the server needs pip install '.[serve]'")

from tests.support.schema_fuzz import fuzz


def test_no_answer_is_a_defect(tmp_path: Path) -> None:
    statuses = fuzz(tmp_path, 10, seed=True)
    assert not any(name.rpartition(" ")[2].startswith("5") for name in statuses)
    found = {name.rpartition(" ")[0] for name in statuses if name.endswith(" 200")}
    assert {"GET /v1/items/{key}", "GET /v1/items/{key}/thumbnail", "DELETE /v1/items/{key}", "GET /v1/map"} <= found
