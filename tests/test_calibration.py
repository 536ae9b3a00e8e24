"""The map from cosine to `match`: exact figures, the fit, and where a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brivl_search.calibration import Calibration, expected_calibration_error
from brivl_search.encoders.brivl import BriVLEncoder
from brivl_search.errors import EncoderError
from tests.pictures import draw
from train import calibrate


def test_probability_is_the_logistic_function() -> None:
    calibration = Calibration(10, -3)
    assert calibration.probability(0.3) == 0.5
    assert calibration.probability(0.5) == pytest.approx(1 / (1 + np.exp(-2)))
    assert Calibration(1e9, 0).probability(1) == pytest.approx(1) and Calibration(1e9, 0).probability(-1) < 1e-20


def test_config_values() -> None:
    assert Calibration.from_config(None) is None
    assert Calibration.from_config({"slope": 2, "intercept": 1, "ece": 0.1}) == Calibration(2, 1)
    with pytest.raises(EncoderError, match="slope and intercept"):
        Calibration.from_config({"slope": 2})


def test_expected_calibration_error_by_hand() -> None:
    probability = np.array([0.1, 0.1, 0.9, 0.9, 1.0])
    belongs = np.array([False, True, True, True, True])
    # Two bins: {.1, .1} with half true, {.9, .9, 1} all true.
    assert expected_calibration_error(probability, belongs, 2) == pytest.approx(2 / 5 * 0.4 + 3 / 5 * (1 - 2.8 / 3))
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_fit_finds_the_map_that_made_the_pairs() -> None:
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-0.3, 0.8, 40_000)
    belongs = rng.random(len(cosine)) < 1 / (1 + np.exp(-(12 * cosine - 4)))
    fitted = calibrate.fit(cosine, belongs)
    assert fitted.slope == pytest.approx(12, rel=0.05) and fitted.intercept == pytest.approx(-4, rel=0.05)
    found = calibrate.calibrate(cosine, belongs, np.arange(len(cosine)))
    assert found["ece"] < 0.02 and found["pairs"] == len(cosine)


def test_separable_pairs_do_not_break_the_fit() -> None:
    fitted = calibrate.fit(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert np.isfinite([fitted.slope, fitted.intercept]).all() and fitted.slope > 0


def test_calibrate_writes_what_the_encoder_reads(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import shutil

    checkpoint, photos = tmp_path / "checkpoint", tmp_path / "photos"
    shutil.copytree(tiny_checkpoint, checkpoint)
    photos.mkdir()
    with (photos / "captions.jsonl").open("w") as lines:
        for n, colour in enumerate(("red", "green", "blue", "black")):
            draw(colour, "ring").save(photos / f"{n}.png")
            lines.write(json.dumps({"image": f"{n}.png", "en": [f"a {colour} ring", colour]}) + "\n")
    before = BriVLEncoder(checkpoint)
    calibrate.main([str(checkpoint), str(photos), "--captions", "en"])
    after = BriVLEncoder(checkpoint)
    assert before.calibration is None and after.calibration is not None
    assert after.fingerprint == before.fingerprint  # indexes made before stay good
