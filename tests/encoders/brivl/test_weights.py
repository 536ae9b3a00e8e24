"""Checkpoints that keep large matrices in int8: how far a value may be off, and that every reader sees the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brivl_search.encoders.brivl import weights
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.numpy_text import NumpyTextTower
from brivl_search.encoders.inventory import _parameters
from tests.support.tiny import make_checkpoint
from train.mini.soup import Part, cook

TEXTS = ["一只在草地上的狗", "a red circle", "x"]


def test_a_value_is_off_by_at_most_half_a_scale() -> None:
    matrix = torch.randn(20, 300, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 20)[:, None]
    matrix[3] = 0
    integers, scale = weights.quantize(matrix)
    assert integers.dtype == torch.int8 and scale.shape == (20, 1)
    assert ((integers * scale - matrix).abs() <= scale / 2 * 1.0001).all()
    assert (integers.abs().amax(1)[torch.arange(20) != 3] == 127).all()


def test_every_reader_sees_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE", 512)
    whole = make_checkpoint(tmp_path / "whole", seed=4)
    cook(tmp_path / "small", Part([whole], [1.0]), int8=True)
    kept = load_file(tmp_path / "small" / "model.safetensors")
    assert kept["text.backbone.embeddings.word_embeddings.weight"].dtype == torch.int8
    assert kept["image.backbones.0.net.conv_head.weight"].dtype == torch.float16  # no matrix
    small, large = (BriVLEncoder(tmp_path / name, device="cpu", precision="fp32") for name in ("small", "whole"))
    vectors = small.encode_texts(TEXTS)
    assert (vectors * large.encode_texts(TEXTS)).sum(1).min() > 0.999
    assert np.abs(vectors - large.encode_texts(TEXTS)).max() > 1e-6  # it did go through int8
    given = NumpyTextTower(tmp_path / "small", small.config.text).encode(small.tokenizer.ids(TEXTS))
    assert np.abs(given - vectors).max() < 2e-6
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert (small.encode_images(pixels) * large.encode_images(pixels)).sum(1).min() > 0.999
    assert small.fingerprint != large.fingerprint
    assert _parameters(tmp_path / "small") == _parameters(tmp_path / "whole")
