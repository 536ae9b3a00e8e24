"""A whole run on drawn pictures: it learns, and goes on after a stop as if there was none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.matching import load_matcher
from brivl_search.errors import UsageError
from tests.support.drawn import CHOOSE, COLOUR, VAL, make_world, stop_changes_nothing
from tests.support.pictures import draw
from train.one_tower.fit import Fit
from train.one_tower.recipe import MatcherRecipe
from train.one_tower.regions import squeeze, unsqueeze
from train.recipe import read_recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    (folder / "recipe.toml").write_text(
        f"""run = {json.dumps(str(folder / "run"))}
[init]
checkpoint = "towers"
[matcher]
text_layers = 1
joint_layers = 2
one_way = true
dropout = 0.0
align_size = 16
bank_texts = 20
bank_words = 6
bank_pictures = 12
shared_layers = 1
[[data]]
folder = "photos"
captions = {{ zh = 0.5, en = 0.5 }}
hold_out_last = {CHOOSE + VAL}
choose = {CHOOSE}
[train]
steps = 120
batch = 16
joint_batch = 12
joint_from = 20
frozen_text_layers = 1
word_dropout = 0.05
recalled = 1
negatives = 3
queue_size = 40
lr = 2e-3
warmup = 5
average = 0.9
word_weight = 0.1
eval_every = 60
top = 9
bf16 = false
""",
        encoding="utf-8",
    )
    return folder


def begin(world: Path, *changes: str) -> Fit:
    return Fit(read_recipe(world / "recipe.toml", list(changes), MatcherRecipe), world)


def test_a_run_learns_and_leaves_the_towers_alone(world: Path) -> None:
    fit = begin(world)
    before = {name: value.clone() for name, value in fit.lessons.encoder.image_tower.state_dict().items()}
    fit.go()
    log = [json.loads(line) for line in (world / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 120 and "cosine_weight" in log[-1]
    assert set(log[-1]["val"]) == {"t2i en", "i2t en", "t2i zh", "i2t zh"}
    # a true pair among three hard negatives: ln 4 at the start, by chance alone
    assert log[0]["alignment"] > 2 and log[-1]["alignment"] < 0.8 * log[0]["alignment"]
    assert "ranking" not in log[0]  # joint layers begin later
    assert log[-1]["ranking"] < log[1]["ranking"] and log[-1]["words"] < log[1]["words"]
    # what the towers know of unseen pictures, and what they and the matcher know together
    towers_alone, both = np.mean([*log[-1]["val"].values()], 0)
    assert both > towers_alone + 4
    assert (world / "run" / "curves.png").stat().st_size > 1000
    last = fit.history()[-1]
    assert last["recall"]["val, R@1"]["t2i en, towers"] == log[-1]["val"]["t2i en"][0] and last["loss"] > 0
    for name, value in fit.lessons.encoder.image_tower.state_dict().items():
        assert torch.equal(value, before[name]), name
    towers = BriVLEncoder(world / "towers", device="cpu", precision="fp32")
    matcher = load_matcher(str(world / "run" / "matcher"), towers, device="cpu", precision="fp32")
    pixels = np.stack([np.asarray(draw(colour, "cross", (64, 64), 500)) for colour in COLOUR])
    scores = matcher.scores(["a red cross"] * 3, matcher.pictures(pixels, [Origin("", 64, 64)] * 3))
    assert np.isfinite(scores).all() and len(set(scores.tolist())) == 3


def test_words_and_masked_regions_take_turns(world: Path) -> None:
    cache = f"cache={json.dumps(str(world / 'run' / 'cache'))}"
    fit = begin(
        world, cache, f"run={json.dumps(str(world / 'masked'))}", "matcher.one_way=false", "train.region_weight=1.0",
        "train.joint_from=0", "train.steps=4", "train.eval_every=4",
    )  # fmt: skip
    seen = []
    for _ in range(4):
        fit._update()
        seen.append(set(fit.learner.parts) & {"words", "regions"})
    assert seen == [{"words"}, {"regions"}] * 2
    fit.step = 0
    fit.go()
    log = json.loads((world / "masked" / "log.jsonl").read_text().splitlines()[-1])
    assert log["words"] > 0 and log["regions"] > 0 and log["loss"] > 0
    towers = BriVLEncoder(world / "towers", device="cpu", precision="fp32")
    assert load_matcher(str(world / "masked" / "matcher"), towers).config.masked_regions  # type: ignore[attr-defined]


def test_a_stop_changes_nothing(world: Path) -> None:
    stop_changes_nothing(world, begin, "train.joint_from=0")


def test_a_recipe_that_is_wrong_is_told(world: Path) -> None:
    from brivl_search.errors import EncoderError

    with pytest.raises(UsageError, match="recaled"):
        begin(world, "train.recaled=1")
    with pytest.raises(EncoderError, match=r"matcher\.width = 64: the towers have 32"):
        begin(world, "matcher.width=64")
    with pytest.raises(EncoderError, match="the matcher has 1 text layers"):
        begin(world, "train.frozen_text_layers=2")
    with pytest.raises(EncoderError, match="regions do not see the text"):
        begin(world, "train.region_weight=0.5")
    with pytest.raises(EncoderError, match="unknown field 'depth'"):
        begin(world, "matcher.depth=2")


def test_regions_lose_little_in_a_byte() -> None:
    features = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(0))
    features[:, :, 8:] *= 50  # another CNN's scale
    kept, highest = squeeze(features, [8, 4])
    assert kept.dtype == np.int8 and highest.shape == (4, 2)
    back = unsqueeze(torch.from_numpy(kept), torch.from_numpy(highest), [8, 4])
    for part in (slice(0, 8), slice(8, 12)):
        error = (back[:, :, part] - features[:, :, part]).norm() / features[:, :, part].norm()
        assert error < 0.01
    assert torch.equal(back.sign()[features.abs() > 0.1], features.sign()[features.abs() > 0.1])
