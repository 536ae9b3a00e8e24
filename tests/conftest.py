"""Shared fixtures: a tiny random checkpoint and small drawn pictures; no network, no ../shared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for name in ("BRIVL_SEARCH_INDEX", "BRIVL_SEARCH_ENCODER"):
    os.environ.pop(name, None)  # a developer's own settings must not leak into tests


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-brivl")
