"""A matcher's folder: what is written is what scores, and it fits one image tower."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.matching import load_matcher
from brivl_search.encoders.one_tower.checkpoint import is_matcher
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher
from brivl_search.errors import EncoderError, UsageError
from tests.support.matchers import make_matcher
from tests.support.stub import StubEncoder
from tests.support.tiny import make_checkpoint, write_boxes

TEXTS = ["a red dog on grass", "草地上的狗", "dog"]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
ORIGINS = [Origin("", 64, 64)] * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    return make_matcher(tmp_path_factory.mktemp("matcher"), checkpoint)


def encoder(checkpoint: Path) -> BriVLEncoder:
    return BriVLEncoder(checkpoint, device="cpu", precision="fp32")


def load(folder: Path, checkpoint: Path) -> OneTowerMatcher:
    found = load_matcher(str(folder), encoder(checkpoint), device="cpu", precision="fp32")
    assert isinstance(found, OneTowerMatcher)
    return found


def test_scores_are_the_models(folder: Path, checkpoint: Path) -> None:
    matcher = load(folder, checkpoint)
    shown = matcher.pictures(PIXELS, ORIGINS)
    assert shown[0].tokens.shape == (5, 16) and shown[0].tokens.dtype == np.float16
    found = matcher.scores([TEXTS[0], TEXTS[1], TEXTS[0]], [shown[0], shown[1], shown[2]])
    towers, model = encoder(checkpoint), matcher.model
    features, boxes, mask = towers.regions(PIXELS)
    ids, there = (torch.from_numpy(part) for part in towers.tokenizer.batch(towers.tokenizer.ids(TEXTS)))
    with torch.inference_mode():
        sides = model.texts(ids, there), model.images(features, boxes, mask)
        expected = model.logits(*sides, torch.tensor([0, 1, 0]), torch.arange(3))
    assert np.allclose(found, expected.numpy(), atol=2e-3)  # a picture is kept in float16
    assert np.allclose(matcher.scores([TEXTS[1]], [shown[1]]), found[1:2], atol=1e-5)  # whatever stands beside it
    assert len({round(float(one), 6) for one in found}) == 3


def test_it_fits_every_checkpoint_with_the_same_cnns(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    same, other = make_checkpoint(tmp_path / "same", dim=16), make_checkpoint(tmp_path / "other", seed=1)
    assert encoder(same).fingerprint != encoder(checkpoint).fingerprint
    assert load(folder, same).fingerprint == load(folder, checkpoint).fingerprint
    with pytest.raises(EncoderError, match="regions of another image tower"):
        load(folder, other)


def test_boxes_are_other_regions(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    from brivl_search.encoders.registry import load_encoder

    boxes = write_boxes(tmp_path / "b.jsonl", {"image_id": "a.jpg", "bbox": [[0, 0, 10, 10]]})
    towers = load_encoder(f"{checkpoint}+boxes={boxes}", device="cpu")
    with pytest.raises(EncoderError, match="another image tower"):
        load_matcher(str(folder), towers)
    own = make_matcher(tmp_path / "own", checkpoint, regions=towers.regions_fingerprint)  # type: ignore[attr-defined]
    shown = load_matcher(str(own), towers, precision="fp32").pictures(
        PIXELS[:2], [Origin("/x/a.jpg", 20, 20), ORIGINS[0]]
    )
    assert [len(one.tokens) for one in shown] == [2, 5]  # one box and the whole picture; the grid where none is known


def test_what_is_no_matcher_is_refused(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    towers = encoder(checkpoint)
    with pytest.raises(UsageError, match="no matcher 'nowhere'"):
        load_matcher("nowhere", towers)
    with pytest.raises(EncoderError, match="holds an encoder of two towers, and no matcher"):
        load_matcher(str(checkpoint), towers)
    with pytest.raises(EncoderError, match=r"is not a matcher: it has no config\.json"):
        load_matcher(str(tmp_path), towers)
    with pytest.raises(EncoderError, match="stub has none: give a matcher by hf:"):
        load_matcher(str(folder), StubEncoder())
    assert is_matcher(folder) and not is_matcher(checkpoint) and not is_matcher(tmp_path)


def test_damage_is_told(checkpoint: Path, tmp_path: Path) -> None:
    towers, folder = encoder(checkpoint), make_matcher(tmp_path / "m", checkpoint)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(EncoderError, match=r"model.safetensors cannot be read"):
        _ = load(folder, checkpoint).model
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "width": 32}))
    with pytest.raises(EncoderError, match=r"does not fit"):
        _ = load(folder, checkpoint).model
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(EncoderError, match="another model's"):
        _ = load(folder, checkpoint).tokenizer
    (folder / "config.json").write_text("[1]")
    with pytest.raises(EncoderError, match="not a JSON object"):
        load_matcher(str(folder), towers)


def test_the_fingerprint_is_of_what_decides_a_score(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    first = load(folder, checkpoint)
    assert load(make_matcher(tmp_path / "a", checkpoint, name="other"), checkpoint).fingerprint == first.fingerprint
    assert load(make_matcher(tmp_path / "b", checkpoint, seed=1), checkpoint).fingerprint != first.fingerprint
    weight = make_matcher(tmp_path / "c", checkpoint, cosine_weight=2.0)
    assert load(weight, checkpoint).fingerprint != first.fingerprint
