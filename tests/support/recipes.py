"""Tables of recipes with whatever a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from train.recipe import Training


def training(**values: Any) -> Training:
    """A `[train]` table."""
    return Training(**{"steps": 1, "batch": 4, "lr": 1e-3, **values})
