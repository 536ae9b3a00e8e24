"""The correction of hubness: its formula, its fit, and how it travels with a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from brivl_search.encoders.brivl.checkpoint import save_checkpoint, write_hubness
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.hubness import HUBNESS, Bank, Hubness
from brivl_search.errors import EncoderError
from train.mini.hubness import fit_hubs


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_product_of_two_vectors_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((60, 16))
    flat[:, [2, 5]] = 0  # the directions that are given up
    texts, images = unit(flat[:40]), unit(flat[40:])
    rotation = np.delete(np.eye(16, dtype=np.float32), [2, 5], 1)
    of_images = Bank(texts[:7] * 0.8, rng.dirichlet(np.ones(7)).astype(np.float32), 0.5, 0.2, 0.1)
    of_texts = Bank(images[:4] * 0.9, rng.dirichlet(np.ones(4)).astype(np.float32), 0.3, 0.1, 0.2)
    hubs = Hubness(rotation, of_images, of_texts, 0.4)

    def near(vector: np.ndarray, bank: Bank) -> float:
        both = zip(bank.shares, bank.centroids, strict=True)
        parts = [share * np.exp(centroid @ vector / bank.temperature) for share, centroid in both]
        return bank.temperature * float(np.log(sum(parts))) - bank.mean

    by_hand = texts @ images.T - 0.5 * np.array([near(x, of_images) for x in images])
    by_hand = by_hand - 0.3 * np.array([near(t, of_texts) for t in texts])[:, None]
    long, short = hubs.images(images), hubs.texts(texts)
    assert long.dtype == short.dtype == np.float32 and long.shape == (20, 16)
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, rtol=1e-5)
    # Lengths before they were scaled: what the kept part of each is shorter by.
    shrunk = np.linalg.norm(short[:, :14], axis=1)[:, None] * np.linalg.norm(long[:, :14], axis=1)[None]
    np.testing.assert_allclose(short @ long.T / shrunk, by_hand, atol=1e-5)


def test_photos_that_resemble_all_texts_step_back() -> None:
    """Texts share a direction; how much of it a photo has says nothing about its captions, and misleads."""
    rng = np.random.default_rng(3)
    common, content = rng.standard_normal(32), rng.standard_normal((120, 32))
    images = unit(content + rng.uniform(-0.5, 1, (120, 1)) * common)
    texts = unit(np.repeat(content, 5, 0) + 0.5 * common + 0.8 * rng.standard_normal((600, 32)))
    unseen, own = texts[300:], np.repeat(np.arange(60, 120), 5)

    def recall(texts: np.ndarray, images: np.ndarray) -> float:
        return float(((texts @ images.T).argmax(1) == own).mean())

    learnt = fit_hubs(texts[:300], images[:60], centroids=(32, 16))
    before, after = recall(unseen, images), recall(learnt.texts(unseen), learnt.images(images))
    assert after > before + 0.03, (before, after)
    assert learnt.of_images.shares.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(learnt.rotation.T @ learnt.rotation, np.eye(30), atol=1e-5)


def test_it_is_part_of_a_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "with")
    plain = BriVLEncoder(folder, precision="fp32", device="cpu")
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    said = ["a red circle", "绿色的圆", "a photo of a dog on grass"]
    texts, images = plain.encode_texts(said), plain.encode_images(pixels)
    hubs = fit_hubs(np.concatenate([texts] * 3), images, centroids=(2, 2))
    write_hubness(folder, hubs)
    kept = Hubness.load(folder, plain.dim)
    assert kept is not None
    np.testing.assert_allclose(kept.images(images), hubs.images(images), atol=0.01)  # centroids are kept as float16
    corrected = BriVLEncoder(folder, precision="fp32", device="cpu")
    assert corrected.fingerprint != plain.fingerprint and corrected.dim == plain.dim
    np.testing.assert_allclose(corrected.encode_texts(said), kept.texts(texts), atol=1e-5)
    np.testing.assert_allclose(corrected.encode_images(pixels), kept.images(images), atol=1e-5)
    np.testing.assert_allclose(
        kept.texts(corrected._numpy_text_tower.encode(corrected.tokenizer.ids(said))), kept.texts(texts), atol=1e-4
    )
    save_checkpoint(folder, plain.config, plain.image_tower, plain.text_tower, plain.tokenizer)
    assert not (folder / HUBNESS).exists()  # other weights, other hubs


def test_a_damaged_file_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "with")
    (folder / HUBNESS).write_bytes(b"nothing")
    with pytest.raises(EncoderError, match=r"hubs\.safetensors cannot be read"):
        BriVLEncoder(folder).encode_texts(["a"])
    few = np.eye(8, dtype=np.float32)
    write_hubness(folder, fit_hubs(few, few, centroids=(2, 2)))
    with pytest.raises(EncoderError, match="not of a model of 32 dimensions"):
        BriVLEncoder(folder).encode_texts(["a"])


def test_a_file_of_one_temperature_for_both_is_still_read(tmp_path: Path) -> None:
    few = np.eye(8, dtype=np.float32)
    hubs = fit_hubs(few, few, centroids=(2, 2), temperatures=(0.05, 0.05))
    tensors = hubs.tensors()
    for name in ("image", "text"):
        tensors[f"{name}.settings"] = tensors[f"{name}.settings"][:2]
    save_file(tensors, tmp_path / HUBNESS)
    old = Hubness.load(tmp_path, 8)
    assert old is not None and old.of_texts.temperature == pytest.approx(0.05)
    np.testing.assert_allclose(old.images(few), hubs.images(few), atol=1e-3)
