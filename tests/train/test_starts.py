"""What a run starts from: sizes and settings come from the checkpoint, what differs is named, tokenizers fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.errors import EncoderError, UsageError
from tests.support.folders import REPO
from tests.support.tiny import make_checkpoint, tiny_model, write_vocab
from tests.train.test_pretrain import to_toml
from train.model.start import check_tokenizer
from train.recipe import Recipe, read_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("start") / "checkpoint")


def recipe_of(folder: Path, checkpoint: Path, *, model: dict[str, Any] | None = None, **init: Any) -> Recipe:
    table: dict[str, Any] = {"run": "run", "init": {"checkpoint": str(checkpoint), **init}}
    table |= {"data": [{"folder": "photos"}], "train": {"steps": 1, "batch": 4, "lr": 1e-3}}
    table |= {} if model is None else {"model": model}
    (folder / "recipe.toml").write_text(to_toml(table), encoding="utf-8")
    return read_recipe(folder / "recipe.toml", [])


def test_sizes_come_from_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    recipe = recipe_of(tmp_path, checkpoint)
    assert (recipe.config.dim, recipe.config.image.grids, recipe.config.image.head.heads) == (32, [2, 1], 2)
    assert recipe.config.text.backbone["hidden_size"] == 32 and recipe.init.tokenizer is None
    changed = recipe_of(
        tmp_path, checkpoint, model={"image": {"region_dropout": 0.5, "freeze_bn": False, "head": {"dropout": 0.2}}}
    )
    assert (changed.config.image.region_dropout, changed.config.image.freeze_bn) == (0.5, False)
    assert (changed.config.image.head.dropout, changed.config.image.head.heads) == (0.2, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": {"head": {"heads": 4}}}, "model.image.head.heads is 4, the checkpoint has 2"),
        ({"image": {"head": {"normalize_tokens": False}}}, "normalize_tokens is False, the checkpoint has True"),
        ({"image": {"backbones": [{"name": "mobilenetv2_035", "mean": [0.5, 0.5, 0.5]}]}}, "backbones.0.mean is [0.5"),
        ({"image": {"backbones": [{"name": "mobilenetv2_100"}]}}, "backbones.0.name is 'mobilenetv2_100'"),
        ({"image": {"pixels": {"size": 96}}}, "model.image.pixels.size is 96, the checkpoint has 64"),
        ({"image": {"grids": [1, 2]}}, "model.image.grids is [1, 2], the checkpoint has [2, 1]"),
        ({"text": {"padding": "seen"}}, "model.text.padding is 'seen', the checkpoint has 'masked'"),
        ({"text": {"backbone": {"num_attention_heads": 4}}}, "num_attention_heads is 4, the checkpoint has 2"),
        ({"text": {"backbone": {"hidden_act": "relu"}}}, "hidden_act is 'relu', the checkpoint has 'gelu'"),
        ({"dim": 16}, "model.dim is 16, the checkpoint has 32"),
    ],
)
def test_a_setting_that_differs_is_named(tmp_path: Path, checkpoint: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_of(tmp_path, checkpoint, model=change)
    message = str(caught.value)
    assert said in message and "init.differs" in message and "\n" not in message


def test_what_differs_on_purpose(tmp_path: Path, checkpoint: Path) -> None:
    larger = {"image": {"pixels": {"size": 96}}}
    recipe = recipe_of(tmp_path, checkpoint, model=larger, differs=["image.pixels.size"])
    assert recipe.config.image.pixels.size == 96
    with pytest.raises(UsageError, match=r"init.differs names dim, which is not different"):
        recipe_of(tmp_path, checkpoint, differs=["dim"])
    other = {**tiny_model(), "image": {**tiny_model()["image"], "grids": [1]}}  # that tower is not the checkpoint's
    assert recipe_of(tmp_path, checkpoint, model=other, towers=["text"]).config.image.grids == [1]


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model is missing, and there is no checkpoint"):
        recipe_of(tmp_path, tmp_path / "nowhere")


def test_a_tokenizer_has_to_be_the_one_the_weights_know(tmp_path: Path, checkpoint: Path) -> None:
    own = TextTokenizer(checkpoint, 16)
    check_tokenizer(own, 120, [checkpoint])
    with pytest.raises(EncoderError, match=r"vocab_size is 10: the words beyond have no vector"):
        check_tokenizer(own, 10, [])
    words = (write_vocab(tmp_path / "other") / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words[40], words[41] = words[41], words[40]
    (tmp_path / "other" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    with pytest.raises(EncoderError, match="the same words have other numbers there"):
        check_tokenizer(TextTokenizer(tmp_path / "other", 16), 120, [checkpoint])


def test_the_recipe_for_own_photos_needs_nothing_else() -> None:
    recipe = read_recipe(REPO / "train" / "recipes" / "own-photos.toml", [])
    shipped = json.loads((REPO / "brivl_search" / "models" / "brivl-mini" / "config.json").read_text(encoding="utf-8"))
    image = recipe.config.to_dict()["image"]
    assert {key: image[key] for key in shipped["image"]} == shipped["image"] and recipe.config.calibration is None
    assert recipe.init.encoder == "brivl-mini" and recipe.init.cnn is recipe.init.text is None
