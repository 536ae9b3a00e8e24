"""The map from cosine to `match`: exact figures, the fit, and where a user sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import load_pixels
from brivl_search.encoders import calibration, load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import BrivlSearchError, EncoderError, UsageError
from brivl_search.evaluation import calibrating
from brivl_search.evaluation.calibrating import calibrate_on, expected_calibration_error, fit, fit_and_judge
from tests.support.pictures import draw
from tests.support.site import Ended
from tests.support.stub import StubEncoder
from tests.support.tiny_hf import make_hf
from train.mini import calibrate


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
    for slope in (float("nan"), float("inf")):
        with pytest.raises(EncoderError, match="slope and intercept"):
            Calibration.from_config({"slope": slope, "intercept": 1})


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
    fitted = fit(cosine, belongs)
    assert fitted.slope == pytest.approx(12, rel=0.05) and fitted.intercept == pytest.approx(-4, rel=0.05)
    found = fit_and_judge(cosine, belongs, np.arange(len(cosine)))
    assert found["ece"] < 0.02 and found["pairs"] == len(cosine)


def test_separable_pairs_do_not_break_the_fit() -> None:
    fitted = fit(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
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


COLOURS = ("red", "green", "blue", "black", "yellow", "purple")


def write_pairs(folder: Path, photos: int = 24, captions: int = 5) -> Path:
    folder.mkdir()
    with (folder / "captions.jsonl").open("w") as lines:
        for n in range(photos):
            colour, shape = COLOURS[n % 6], ("circle", "square", "cross", "ring")[n // 6 % 4]
            draw(colour, shape, seed=n).save(folder / f"{n}.png")
            said = [f"a {colour} {shape} on the grass {i}" for i in range(captions)]
            lines.write(json.dumps({"image": f"{n}.png", "en": said}) + "\n")
    return folder


def test_true_pairs_against_random_ones(tmp_path: Path) -> None:
    """The stub knows which caption is whose: a true pair is likelier than not to be called one."""
    dataset, encoder = load_dataset(write_pairs(tmp_path / "photos")), StubEncoder()
    counted: list[int] = []
    found, hubs = calibrate_on(dataset, encoder, counted.append, workers=0)
    assert hubs.correction is None and "24 photos are too few" in hubs.why
    assert sum(counted) == 24 + 120 and found["pairs"] == 240
    assert calibrate_on(dataset, encoder, counted.append, workers=0)[0] == found
    texts, owners = dataset.pairs()
    images = encoder.encode_images(np.stack([load_pixels(path, encoder.pixels) for path in dataset.images]))
    own = (encoder.encode_texts(texts) * images[owners]).sum(1)
    assert Calibration(found["slope"], found["intercept"]).probability(float(np.median(own))) > 0.5
    with pytest.raises(UsageError, match="10 captions of 10 photos are too few"):
        calibrate_on(load_dataset(write_pairs(tmp_path / "few", 10, 1)), encoder, counted.append, workers=0)


def test_an_encoder_of_others_gets_a_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Ended]
) -> None:
    """What `models calibrate` keeps is found by every later command, and dropped by --forget."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    photos, name = write_pairs(tmp_path / "photos"), f"hf:{make_hf(tmp_path / 'clip', 'clip')}"
    index = ("--index", str(tmp_path / "index"))
    assert run_here("build-index", str(photos), *index, "--encoder", name, "--workers", "0", "-q").code == 0
    learn = ("models", "calibrate", name, "--dataset", str(photos), "--captions", "en")
    code, _, err = run_here(*learn, "-q")
    assert code == 1 and "own photo than to another (50% by chance)" in err and not (tmp_path / "data").exists()
    monkeypatch.setattr(calibrating, "LEAST_RIGHT", 0.0)  # its weights are random
    ask = ("query", "a red circle", *index, "--format", "jsonl", "-k", "1")
    assert "match" not in json.loads(run_here(*ask).out)
    code, out, err = run_here(*learn, "--format", "json")
    assert code == 0, err
    found = json.loads(out)
    assert Path(found["file"]).is_relative_to(tmp_path / "data") and "kept in" in err
    hit = json.loads(run_here(*ask).out)
    assert hit["match"] == pytest.approx(
        Calibration(found["slope"], found["intercept"]).probability(hit["score"]), abs=1e-3
    )
    assert "none of your own" not in run_here("models", "calibrate", name, "--forget").err
    assert "match" not in json.loads(run_here(*ask).out)
    assert "none of your own" in run_here("models", "calibrate", name, "--forget").err
    code, _, err = run_here("models", "calibrate", name)
    assert code == 2 and "give either --dataset" in err and len(err.splitlines()) == 1


def test_a_kept_calibration_goes_before_an_encoders_own(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    fingerprint = load_encoder(str(tiny_checkpoint)).fingerprint
    file = calibration.save(fingerprint, {"slope": 7.0, "intercept": -2.0, "ece": 0.1, "pairs": 9.0})
    loaded = load_encoder(str(tiny_checkpoint))
    assert loaded.calibration == Calibration(7, -2) and loaded.fingerprint == fingerprint
    file.write_text("{")
    with pytest.raises(EncoderError, match="delete it"):
        load_encoder(str(tiny_checkpoint))
    assert calibration.forget(fingerprint) and not calibration.forget(fingerprint)
    assert load_encoder(str(tiny_checkpoint)).calibration is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert calibration.saved(fingerprint) is None
    with pytest.raises(BrivlSearchError, match="set XDG_DATA_HOME"):
        calibration.save(fingerprint, {})
