"""The plane in which the map shows a collection."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server needs pip install '.[serve]'")

import numpy as np


def test_the_map_is_the_plane_of_most_variance() -> None:
    from brivl_search.server.answers.map import project

    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((500, 2)).astype(np.float32) * [3, 2]
    axes = np.linalg.qr(rng.standard_normal((16, 2)))[0].T
    plane = project((hidden @ axes + 0.01 * rng.standard_normal((500, 16))).astype(np.float32))
    for at in (0, 1):
        assert abs(np.corrcoef(plane[:, at], hidden[:, at])[0, 1]) > 0.99
        assert np.abs(plane[:, at]).max() == pytest.approx(1)
    assert project(np.ones((3, 8), np.float32)).tolist() == [[0, 0]] * 3
