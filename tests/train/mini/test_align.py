"""Joining two separately trained towers: pairs of captions, the regression, and what the joined checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from brivl_search.encoders.brivl.checkpoint import read_config
from tests.support.tiny import make_checkpoint
from tests.train.test_pretrain import photos, to_toml  # noqa: F401 - a fixture
from train.data.photos import Photo
from train.mini.align import align, ridge, text_pairs

REST = {
    "run": "run",
    "init": {"tokenizer": "none"},
    "model": {},
    "teachers": [],
    "train": {"steps": 1, "batch": 1, "lr": 1e-3},
}  # what joining does not read


def test_a_caption_learns_from_its_translation_or_from_all() -> None:
    captions = {"en": ["a dog", "a red dog"], "mt": ["狗", "红狗"], "zh": ["一只狗"]}
    pairs = text_pairs([Photo("p", captions, {}, 1), Photo("q", {"zh": ["草"]}, {}, 1)], {"mt": "en"}, "en")
    assert pairs == [
        ("a dog", ["a dog"]),
        ("a red dog", ["a red dog"]),
        ("狗", ["a dog"]),
        ("红狗", ["a red dog"]),
        ("一只狗", ["a dog", "a red dog"]),
    ]


def test_ridge_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    x, true = torch.randn(400, 12) + 3, torch.randn(5, 12)
    weight, bias = ridge(x, x @ true.T + 2, strength=1e-9)
    torch.testing.assert_close(weight, true, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, torch.full((5,), 2.0), atol=1e-3, rtol=1e-3)
    shrunk, _ = ridge(x, x @ true.T, strength=10)
    assert shrunk.norm() < 0.5 * true.norm()


def test_the_joined_checkpoint_has_both_towers(tmp_path: Path, photos: Path) -> None:  # noqa: F811
    text, image = make_checkpoint(tmp_path / "text", seed=1), make_checkpoint(tmp_path / "image", seed=2)
    recipe = tmp_path / "recipe.toml"
    data = [{"folder": str(photos), "captions": {"zh": 1, "en": 1}, "hold_out_last": 9}]
    recipe.write_text(to_toml({**REST, "data": data, "parallel": {"zh": "en"}}), encoding="utf-8")
    cosine = align(recipe, text, image, tmp_path / "joined", "en")
    assert cosine > 0.9  # 9 kinds of sentences are easily fitted
    joined, old_text, old_image = (load_file(tmp_path / n / "model.safetensors") for n in ("joined", "text", "image"))
    for name, tensor in joined.items():
        if not name.startswith("text.head.fc2"):
            source = old_image if name.startswith("image.") else old_text
            torch.testing.assert_close(tensor, source[name].to(tensor.dtype))
    assert read_config(tmp_path / "joined").dim == 32
