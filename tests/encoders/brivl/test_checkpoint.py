"""Checkpoint folders: round trip, fingerprint, and what a damaged one says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.errors import EncoderError
from tests.support.tiny import make_checkpoint


def test_checkpoint_round_trip_and_fingerprint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    a, b = BriVLEncoder(tiny_checkpoint), BriVLEncoder(copy)
    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.encode_texts(["dog"]), b.encode_texts(["dog"]))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "name": "other", "training": {"step": 5}}))
    assert BriVLEncoder(copy).fingerprint == a.fingerprint
    config["image"]["backbones"][0]["mean"] = [0.4, 0.4, 0.4]
    (copy / "config.json").write_text(json.dumps(config))
    assert BriVLEncoder(copy).fingerprint != a.fingerprint
    assert BriVLEncoder(make_checkpoint(tmp_path / "other", seed=1)).fingerprint != a.fingerprint


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"123"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text('{"version": 99}'), "newer"),
        (lambda f: (f / "config.json").write_text('{"depth": 3}'), "depth"),
        (lambda f: (f / "tokenizer.json").unlink(), "neither tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    ],
)
def test_damaged_checkpoints_are_named(tmp_path: Path, tiny_checkpoint: Path, damage, words: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, folder)
    damage(folder)
    with pytest.raises(EncoderError, match=words):
        load_encoder(str(folder)).encode_texts(["dog"])


def test_weights_of_another_shape_are_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["dim"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="does not fit"):
        load_encoder(str(folder)).encode_texts(["dog"])
