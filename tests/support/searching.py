"""Indexes for tests of searching, and what hits are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from brivl_search.search.hits import Hit
from tests.support import building


def build(folder: Path, index: Path, encoder: Any, **options: Any) -> Path:
    """The index, once it holds the folder."""
    building.build(folder, index, encoder, **options)
    return index


def names(hits: list[Hit]) -> list[str]:
    return [os.path.basename(hit.path) for hit in hits]
