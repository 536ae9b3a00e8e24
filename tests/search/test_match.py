"""A match is known between one text and one picture only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders.calibration import Calibration
from brivl_search.search.engine import Engine, SearchOptions


def test_match_is_given_between_text_and_picture_only(index: Path, shapes: Path) -> None:
    engine, ring = Engine(index), shapes / "red-ring.png"
    assert all(hit.match is None for hit in engine.by_text("a red ring", SearchOptions(3)))
    engine.encoder.calibration = Calibration(10, -5)
    for hit in (*engine.by_text("a red ring", SearchOptions(9)), *engine.by_image(ring, SearchOptions(9))):
        assert hit.match == pytest.approx(1 / (1 + np.exp(5 - 10 * hit.score)))
        assert hit.to_dict()["match"] == round(hit.match or 0, 4)
    alike = engine.by_image(ring, SearchOptions(3), target="image")
    alike += engine.by_text("a red ring", SearchOptions(3), target="text")
    assert len(alike) == 6 and all(hit.match is None and "match" not in hit.to_dict() for hit in alike)
