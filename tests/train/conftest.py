"""Runs of training are measured often here, and draw a picture of their curves each time: for tests that look at it."""

from __future__ import annotations

import pytest


@pytest.fixture
def curves() -> None:
    """A test that asks for it has `curves.png` drawn."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes a quarter of a second, longer than the steps before it."""
    if "curves" not in request.fixturenames:
        monkeypatch.setattr("train.run.loop.plot", lambda history, path: None)
