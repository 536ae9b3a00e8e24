"""Recipes are read strictly: a typing error is a message that names the right key, never another model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brivl_search.errors import UsageError
from tests.support.folders import REPO
from train import pretrain
from train.captions.recipe import CaptionRecipe
from train.compare import CompareRecipe
from train.mini import distill
from train.mini.head_recipe import HeadsRecipe
from train.one_tower.recipe import MatcherRecipe
from train.recipe import Data, Init, Recipe, Shards, TextRecipe, Training, WordsRecipe, read_recipe

RECIPES = REPO / "train" / "recipes"
MINI = RECIPES / "brivl-mini.toml"
OTHERS = (
    "brivl-mini-text",
    "brivl-mini-3",
    "brivl-mini-3-words",
    "brivl-mini-rerank",
    "brivl-mini-captions",
    "compare-one-tower",
)  # of other kinds


def test_every_shipped_recipe_is_read() -> None:
    paths = [path for path in RECIPES.glob("*.toml") if path.stem not in OTHERS]
    steps = {path.stem: read_recipe(path, []).train.steps for path in paths}
    assert steps == {
        "brivl-1.0": 57_292,
        "brivl-2.0": 241_815,
        "brivl-mini": 600,
        "brivl-mini-2": 250,
        "brivl-mini-2-image": 400,
        "brivl-mini-image": 600,
        "compare": 200,
        "own-encoder": 300,
        "own-photos": 60,
    }
    text = read_recipe(RECIPES / "brivl-mini-text.toml", [], TextRecipe)
    assert (text.train.steps, [teacher.name for teacher in text.teachers]) == (1200, ["english", "chinese"])
    learnt = read_recipe(RECIPES / "brivl-mini-3-words.toml", [], WordsRecipe)
    assert (learnt.train.steps, [teacher.name for teacher in learnt.teachers]) == (300, ["en", "zh"])
    heads = read_recipe(RECIPES / "brivl-mini-3.toml", [], HeadsRecipe)
    matcher = read_recipe(RECIPES / "brivl-mini-rerank.toml", [], MatcherRecipe)
    assert matcher.matcher["one_way"] and [table.choose for table in matcher.data] == [200]
    captions = read_recipe(RECIPES / "brivl-mini-captions.toml", [], CaptionRecipe)
    assert captions.captioner["starts"][:2] == ["zh", "en"] and [table.choose for table in captions.data] == [200]
    compared = read_recipe(RECIPES / "compare-one-tower.toml", [], CompareRecipe).train
    assert len(compared.seeds) >= 3 and compared.objectives == ["moco", "clip", "uniter"]
    assert heads.config.image.classes == 1000 and {table.kind for table in heads.labelled} <= {*heads.kinds}


def test_values_and_defaults() -> None:
    recipe = read_recipe(RECIPES / "brivl-1.0.toml", [])
    cfg = recipe.train
    assert (cfg.queue_size, cfg.momentum, cfg.temperature, cfg.in_batch_negatives) == (9600, 0.99, 0.07, False)
    assert (cfg.frozen, cfg.frozen_cnn_modules, cfg.captions_per_image) == ([13], ["conv_head", "bn2"], 1)
    assert recipe.shards == [Shards(folder="../../runs/pairs", captions={"zh": 1.0})]
    assert recipe.config.dim == 2048 and recipe.config.image.pixels.size == 380
    assert recipe.raw["train"]["steps"] == 57_292 and "clip_grad" in recipe.raw["train"]
    assert read_recipe(RECIPES / "compare.toml", []).train.frozen == [23]


def test_set_changes_what_it_names() -> None:
    changes = ["train.steps=7", "run=runs/try", "data.1.repeat=4", "train.frozen_blocks=[17, 12]", "train.bf16=false"]
    recipe = read_recipe(MINI, changes)
    assert (recipe.train.steps, recipe.run, recipe.data[1].repeat) == (7, "runs/try", 4)
    assert (recipe.train.frozen, recipe.train.bf16) == ([17, 12], False)
    assert recipe.raw["train"]["steps"] == 7  # a checkpoint's config.json says what was trained


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.temprature=0.5", "there is no train.temprature: did you mean temperature?"),
        ("trian.steps=5", "there is no trian: did you mean train?"),
        ("init.tokeniser='x'", "there is no init.tokeniser: did you mean tokenizer?"),
        ("data.0.captoins={}", "there is no data.0.captoins: did you mean captions?"),
        ("model.dimm=3", "there is no model.dimm: did you mean dim?"),
        ("model.image.head.layer=3", "there is no model.image.head.layer: did you mean layers?"),
        ("model.image.pixels.sise=3", "there is no model.image.pixels.sise: did you mean size?"),
        ("train.zzz=1", "there is no train.zzz: known are seed, steps"),
        ("train.loss=sigmoid", "train.loss = 'sigmoid': input should be 'moco', 'clip' or 'siglip'"),
        ("train.bias=-5.0", 'bias is for loss = "siglip"'),
        ("model.dim='x'", "model.dim = 'x': input should be a valid integer"),
        ("model.image.head.heads=5", "model.image.width = 384 is no multiple of head.heads = 5"),
        ("model.image.head.dropout=1.0", "model.image.head.dropout = 1.0: it must be at least 0 and less than 1"),
        ("model.image.grids=[]", "model.image.grids is empty"),
        ("model.image.grids=[0]", "model.image.grids.0 = 0: it must be 1 or more"),
        ("model.image.backbones.0.std=[0.5]", "model.image.backbones.0.std = [0.5]: give three numbers"),
        ("model.image.pixels.size=0", "not a pixel specification"),
        ("model.text.max_length=99", "is more than text.backbone.max_position_embeddings = 64"),
        ("train.frozen_text_layers=7", "train.frozen_text_layers = 7: the text backbone has 6 layers"),
        ("train.cached_blocks=[3]", "need a number for each CNN"),
        ("train.frozen_towers=['text', 'image']", "nothing would learn"),
        ("data.0.captions={zh = 0.0}", "data.0: captions: every weight is 0"),
        ("data.0.templates={en_ = ['{}']}", "en_ is no field of `captions`"),
        ("data.0.templates={en = ['a {thing}']}", "'a {thing}' needs {} where the caption goes"),
        ("train.batch=0", "train.batch = 0: input should be greater than or equal to 1"),
        ("train.steps=ten", "train.steps = 'ten': input should be a valid integer"),
        ("train.momentum=1", "train.momentum = 1: input should be less than 1"),
        ("train.temperature=0", "train.temperature = 0: input should be greater than 0"),
        ("train.frozen_towers=['texts']", "input should be 'image' or 'text'"),
        ("train.accumulate=7", "no multiple of accumulate = 7"),
        ("train.temperature=inf", "train.temperature = inf: input should be a finite number"),
        ("data.-1.repeat=2", "--set data.-1.repeat=2: tables are counted from 0"),
        ("data.9.repeat=2", "--set data.9.repeat=2: the recipe has no table data.9"),
        ("train", "--set train: write SECTION.KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(change: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(MINI, [change])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("run = \n")
    (tmp_path / "empty.toml").write_text("")
    for name, said in (("none.toml", "No such file"), ("broken.toml", "is not TOML"), ("empty.toml", "run is missing")):
        with pytest.raises(UsageError, match=said):
            read_recipe(tmp_path / name, [])


@pytest.mark.parametrize("main", [pretrain.main, distill.main])
def test_the_command_ends_with_2(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as ended:
        main([str(RECIPES / "nowhere.toml")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "nowhere.toml: No such file" in error


def test_the_readme_names_every_key() -> None:
    """train/README.md explains each key of a recipe, and no key that does not exist."""
    text = (REPO / "train" / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## The recipe") :]
    for kind in (Recipe, Init, Data, Shards, Training):
        names = [name for name in kind.model_fields if name != "raw"]
        missing = [name for name in names if not re.search(rf"`(\[+)?{name}\b", table)]
        assert missing == [], kind.__name__
