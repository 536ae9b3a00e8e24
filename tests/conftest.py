"""Shared fixtures: a tiny random checkpoint and small drawn pictures; no network, no ../shared."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.stub import StubEncoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for each other
os.environ["XDG_DATA_HOME"] = os.path.join(tempfile.gettempdir(), "brivl-search-tests-keep-nothing-here")
for name in ("BRIVL_SEARCH_INDEX", "BRIVL_SEARCH_ENCODER"):
    os.environ.pop(name, None)  # a developer's own settings must not leak into tests


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-brivl")


@pytest.fixture
def encoder() -> StubEncoder:
    """Deterministic vectors without a model; counts what it embeds."""
    from tests.e2e.stub import StubEncoder

    return StubEncoder()
