"""Names of encoders: what each finds, and what an unknown or a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny import tiny_model
from tests.support.tiny_hf import (
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    load,
)


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(UsageError, match=r"no encoder 'nonsense'.*known name"):
        load_encoder("nonsense")
    with pytest.raises(EncoderError, match="timm cannot build"):
        ImageTower(ModelConfig.from_dict(tiny_model(image={"backbones": [{"name": "no_such_net"}]})).image, 32)


def test_wrong_names_of_region_sources(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name, words in (
        (f"{tiny_checkpoint}+boxes={tmp_path}/none.jsonl", "No such file"),
        (f"{tiny_checkpoint}+boxes=", "say which file"),
        (f"{tiny_checkpoint}+detector=yolo", "no detector 'yolo': give hf:"),
        ("nonsense+boxes=x.jsonl", "boxes are for BriVL's encoders"),
    ):
        with pytest.raises(UsageError, match=words):
            load_encoder(name)


def test_a_folder_needs_no_hf_before_it(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(str(checkpoints["clip"]))
    assert encoder.name == f"hf:{checkpoints['clip']}" and encoder.fingerprint == load(checkpoints["clip"]).fingerprint
