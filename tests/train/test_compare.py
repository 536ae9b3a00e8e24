"""Three objectives on one set of features: what each is given, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from tests.support.drawn import VAL, make_world
from train import compare
from train.recipe import read_recipe

RECIPE = f"""[init]
checkpoint = "towers"
[towers]
dim = 8
head = {{ layers = 1, heads = 2, feedforward = 16, hidden = 16 }}
[matcher]
joint_layers = 1
heads = 2
feedforward = 16
[[data]]
folder = "photos"
captions = {{ en = 1.0 }}
hold_out_last = {VAL}
[train]
seeds = [0, 1]
steps = 2
batch = 6
components = 4
text_layers = 1
queue_size = 8
lr = 1e-3
warmup = 1
measured_photos = 9
bf16 = false
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    (folder / "recipe.toml").write_text(f"run = {json.dumps(str(folder / 'run'))}\n{RECIPE}", encoding="utf-8")
    return folder


def test_every_objective_runs_once_for_each_seed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(world / "recipe.toml")])
    first = capsys.readouterr().out
    lines = [json.loads(line) for line in (world / "run" / "results.jsonl").read_text().splitlines()]
    assert {(one["objective"], one["seed"]) for one in lines} == {(n, s) for n in compare.OBJECTIVES for s in (0, 1)}
    assert len({one["pairs"] for one in lines}) == 1 and all(0 <= one["t2i@1"] <= one["t2i@10"] <= 100 for one in lines)
    compare.main([str(world / "recipe.toml")])  # all are done
    again = capsys.readouterr().out
    assert again.startswith("| objective |") and first.endswith(again) and "± " in again and "BriVL (MoCo)" in again


def test_both_two_tower_objectives_start_alike_and_learn(world: Path) -> None:
    recipe = read_recipe(world / "recipe.toml", [], compare.CompareRecipe)
    encoder = BriVLEncoder(world / "towers", device="cpu", precision="fp32")
    lessons = compare.Lessons(recipe, world, encoder)
    lessons.regions.make(1)
    features = compare.Features(lessons, recipe.train)
    assert features.regions.shape == (72, 5, 4)
    assert float(features.regions.float().square().mean()) == pytest.approx(1, abs=0.3)
    states = []
    for name in ("moco", "clip"):
        torch.manual_seed(3)
        states.append(compare.TwoRun(name, recipe, features).learns.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    tokens, mask = features.texts(lessons.draw(0)[1][:, 0])
    assert tokens.shape[:2] == mask.shape and tokens.shape[2] == features.width
    photos, regions = torch.arange(6), features.pictures(lessons.draw(0)[0])
    for run in (compare.TwoRun("moco", recipe, features), compare.OneRun(recipe, features)):
        run.loss(regions, tokens, mask, photos)  # fills MoCo's queue
        run.loss(regions, tokens, mask, photos).backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad for name, p in run.learns.named_parameters() if p.grad is not None}
        assert any("project" in n or "feature" in n for n, g in grads.items() if float(g.abs().sum()) > 0)


def test_the_table_of_all_pairs_is_of_each_pair(world: Path) -> None:
    recipe = read_recipe(world / "recipe.toml", [], compare.CompareRecipe)
    encoder = BriVLEncoder(world / "towers", device="cpu", precision="fp32")
    lessons = compare.Lessons(recipe, world, encoder)
    lessons.regions.make(1)
    features = compare.Features(lessons, recipe.train)
    torch.manual_seed(0)
    run = compare.OneRun(recipe, features).eval()
    tokens, mask = features.texts(lessons.draw(0)[1][:3, 0])
    regions = features.pictures(lessons.draw(0)[0][:4])
    with torch.no_grad():
        table = run.table(run.learns, regions, tokens, mask)
        sides = compare.Side(tokens, mask), run.learns.images(regions, lessons.boxes)
        one = run.learns.logits(*sides, torch.tensor([2]), torch.tensor([1]))
    assert table.shape == (3, 4) and torch.allclose(table[2, 1], one[0], atol=1e-5)


def test_the_mean_and_the_spread_are_of_the_seeds() -> None:
    runs = [
        {"objective": "clip", "seed": seed, "parameters": 2_000_000, "cpu_s_per_step": 0.5, "cpu_s_table": 1.0}
        | {f"{way}@{k}": float(k + 2 * seed) for way in ("t2i", "i2t") for k in (1, 5, 10)}
        for seed in (0, 1)
    ]
    row = compare.show(runs, 300).splitlines()[-1]
    assert row.startswith("| CLIP's loss | 2 | 2.0 M | 2.0 ± 1.4 / 6.0 ± 1.4 / 11.0 ± 1.4 |")
