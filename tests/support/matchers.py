"""Matchers for tests: one that needs no model, and folders of tiny ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from brivl_search.encoders import model_folder
from brivl_search.encoders.base import Encoder, Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower


class StubMatcher:
    """Turns the towers' order round: the darker a picture and the longer a text, the better the pair."""

    name, fingerprint, cosine_weight = "stub-matcher", "matcher-stub", 0.0

    def __init__(self, encoder: Encoder) -> None:
        self.pixels = encoder.pixels
        self.read: list[str] = []

    def pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> list[float]:
        self.read += [origin.path for origin in origins]
        return [-float(one.mean()) for one in pixels]

    def scores(self, texts: Sequence[str], pictures: Sequence[float]) -> np.ndarray:
        pairs = zip(texts, pictures, strict=True)
        return np.array([picture + len(text) for text, picture in pairs], np.float32)


def make_matcher(folder: Path, checkpoint: Path, seed: int = 0, **changes: object) -> Path:
    """The folder of a tiny matcher with random weights, for the towers of `checkpoint`."""
    encoder = BriVLEncoder(checkpoint, device="cpu", precision="fp32")
    torch.manual_seed(seed)
    settings = {
        "name": "tiny-matcher", "vocab_size": 120, "region_size": encoder.image_tower.project.in_features, "width": 16,
        "heads": 2, "feedforward": 32, "text_layers": 1, "joint_layers": 1, "one_way": True, "max_length": 16,
        "regions": encoder.regions_fingerprint, "cosine_weight": 1.5,
    }  # fmt: skip
    config = MatcherConfig(**{**settings, **changes})  # type: ignore[arg-type]
    model_folder.save(folder, config, OneTower(config), encoder.tokenizer, int8=False)
    return folder
