"""The encoder over a BriVL checkpoint, on a tiny random model: vectors, precision, and lazy towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.errors import UsageError


def pixels(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_images_and_texts_are_unit_float32(tiny_checkpoint: Path) -> None:
    encoder = load_encoder(str(tiny_checkpoint))
    images, texts = encoder.encode_images(pixels(5)), encoder.encode_texts(["红色的圆", "dog"])
    assert images.shape == (5, 32) and texts.shape == (2, 32) and images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, 32)
    with pytest.raises(UsageError, match="uint8"):
        encoder.encode_images(np.zeros((1, 64, 64, 3), dtype=np.float32))


def test_bf16_and_fp32_agree(tiny_checkpoint: Path) -> None:
    batch = pixels(4)
    a = BriVLEncoder(tiny_checkpoint, precision="fp32").encode_images(batch)
    b = BriVLEncoder(tiny_checkpoint, precision="bf16").encode_images(batch)
    assert (a * b).sum(1).min() > 0.99  # eight bits of mantissa through a random network


def test_few_tokens_are_float32_and_agree_with_bf16(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text takes the precise path, many the fast one; no vector changes by more than bfloat16's noise."""
    monkeypatch.setattr("brivl_search.encoders.device.has_fast_bf16", lambda device: True)
    auto, exact, fast = (BriVLEncoder(tiny_checkpoint, device="cpu", precision=p) for p in ("auto", "fp32", "bf16"))
    texts = ["a red dog", "一只在草地上的狗", "the green circle on the blue square"]
    for text in texts:
        np.testing.assert_array_equal(auto.encode_texts([text]), exact.encode_texts([text]))
        assert float(auto.encode_texts([text])[0] @ fast.encode_texts([text])[0]) >= 0.999
    many = auto.encode_texts(texts * 10)
    np.testing.assert_array_equal(many, fast.encode_texts(texts * 10))
    alone = np.concatenate([auto.encode_texts([text]) for text in texts])
    assert (many[:3] * alone).sum(1).min() >= 0.999
    assert auto.fingerprint == exact.fingerprint == fast.fingerprint


def test_towers_load_lazily_and_alone(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint)
    encoder.encode_texts(["dog"])
    assert "text_tower" in vars(encoder) and "image_tower" not in vars(encoder)
