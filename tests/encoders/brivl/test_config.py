"""config.json of a checkpoint, and the sizes of the papers."""

from __future__ import annotations

import dataclasses
import json

import torch

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from tests.support.tiny import tiny_model


def test_config_round_trip() -> None:
    config = ModelConfig.from_dict(tiny_model())
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert dataclasses.asdict(config)["image"]["pixels"]["size"] == 64


def test_paper_size_is_the_same_code() -> None:
    """BriVL's released sizes, built on the meta device: parameter counts of the published towers."""
    with torch.device("meta"):
        config = ModelConfig.from_dict(
            {"dim": 2048, "image": {"backbones": [{"name": "tf_efficientnet_b5.ns_jft_in1k"}]}}
        )
        text = TextTower(config.text, 2048)
        image = ImageTower(config.image, 2048)
    count = sum(p.numel() for p in image.parameters()) / 1e6
    assert 141 < count < 142.5  # 143.7M in the release, which also carries the unused 2.05M classifier
    # 102.3M + 27.8M in the release; its BERT has a pooler of 0.59M that BriVL never uses
    assert 129 < sum(p.numel() for p in text.parameters()) / 1e6 < 130
