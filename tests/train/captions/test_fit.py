"""A whole run on drawn pictures: it learns to say what is there, and goes on after a stop as if there was none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captions.captioner import FolderCaptioner
from brivl_search.encoders.captions.model import Captioner
from brivl_search.errors import EncoderError, UsageError
from tests.encoders.captions.test_model import looked, made
from tests.support.drawn import CHOOSE, VAL, make_world, stop_changes_nothing
from tests.support.tiny import make_checkpoint
from train.captions.fit import Fit
from train.captions.losses import PADDING, caption_loss
from train.captions.recipe import CaptionRecipe
from train.captions.start import known
from train.recipe import read_recipe
from train.run.sitting import inheriting


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    (folder / "recipe.toml").write_text(
        f"""run = {json.dumps(str(folder / "run"))}
[init]
checkpoint = "towers"
[captioner]
layers = 2
dropout = 0.0
max_length = 12
beams = 3
[[data]]
folder = "photos"
captions = {{ zh = 0.5, en = 0.5 }}
hold_out_last = {CHOOSE + VAL}
choose = {CHOOSE}
[train]
steps = 120
batch = 9
captions_per_image = 2
lr = 4e-3
warmup = 5
average = 0.9
eval_every = 60
label_smoothing = 0.0
bf16 = false
""",
        encoding="utf-8",
    )
    return folder


def begin(world: Path, *changes: str) -> Fit:
    return Fit(read_recipe(world / "recipe.toml", list(changes), CaptionRecipe), world)


def seen_well(fit: Fit) -> None:
    """Gives the run towers that see: regions that differ by what is drawn. Those of random weights hardly do."""
    rng = np.random.default_rng(0)
    size = fit.teaching.fast.config.region_size
    of: dict[str, np.ndarray] = {}

    def take(photos: list[int], views: list[int]) -> torch.Tensor:
        rows = []
        for photo in photos:
            shape, colour = fit.lessons.photos[photo].captions["en"][1].split(" in ")
            both = [of.setdefault(name, rng.standard_normal(size)) for name in (shape, colour)]
            rows.append(sum(both) + 0.5 * rng.standard_normal((5, size)))
        return torch.from_numpy(np.stack(rows)).float()

    fit.lessons.regions.take = take  # type: ignore[assignment, method-assign]


def test_a_run_learns_to_say_what_is_there(world: Path) -> None:
    fit = begin(world)
    seen_well(fit)
    fit.go()
    log = [json.loads(line) for line in (world / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["words"] < 0.5 * log[0]["words"]
    assert set(log[-1]["choose"]) == set(log[-1]["val"]) == {"zh", "en"} and "val" not in log[-2]
    measure = fit.measures["val"]  # photos that it was not taught with
    drafts = measure.drafts(fit.teaching.slow.eval(), fit.teaching.words, 3, bf16=False)
    right = 0
    for photo, some in zip(measure.photos, drafts["en"], strict=True):
        shape, colour = fit.lessons.photos[photo].captions["en"][1].split(" in ")
        said = some[0].text.lower()
        right += (shape in said) + (colour in said)
    assert right >= 13, [some[0].text for some in drafts["en"]]  # of 18, by chance 6


def test_what_a_run_writes_is_a_captioner(world: Path) -> None:
    run = ["train.steps=4", "train.eval_every=2", f"run={json.dumps(str(world / 'short'))}"]
    fit = begin(world, *run, f"cache={json.dumps(str(world / 'run' / 'cache'))}")
    fit.go()
    assert fit.finish() >= 0
    towers = BriVLEncoder(world / "towers", device="cpu", precision="fp32")
    captioner = FolderCaptioner(world / "short" / "captioner", towers, device="cpu", precision="fp32")
    assert captioner.languages == ("zh", "en") and captioner.config.training["cosine_weights"]
    pixels = np.stack([load_pixels(photo.path, towers.pixels) for photo in fit.lessons.photos[:3]])
    origins = [Origin("", 64, 64)] * 3
    for drafts in captioner.write(pixels, origins, ["en", "zh"], 3):
        for some in drafts.captions.values():
            assert len({one.text for one in some}) == len(some) <= 3
    with pytest.raises(UsageError, match="does not write in 'fr'"):
        captioner.write(pixels, origins, ["fr"], 1)
    other = BriVLEncoder(make_checkpoint(world / "other", seed=1), device="cpu")
    with pytest.raises(EncoderError, match="reads another image tower"):
        FolderCaptioner(world / "short" / "captioner", other)


def test_a_stop_changes_nothing(world: Path) -> None:
    stop_changes_nothing(
        world,
        begin,
        "train.vector_dropout=0.5",
        "train.vector_noise=0.2",
        "train.token_dropout=0.2",
        "captioner.dropout=0.1",
    )


def test_it_begins_with_what_the_towers_know(world: Path) -> None:
    fit = begin(world, f"run={json.dumps(str(world / 'begin'))}")
    model, towers = fit.teaching.fast, fit.lessons.encoder
    text = towers.text_tower.backbone
    assert torch.equal(model.words.weight, text.get_input_embeddings().weight[model.kept])
    assert torch.equal(model.layers[0].fc1.weight, text.encoder.layer[0].intermediate.dense.weight)
    assert torch.equal(model.feature.weight, towers.image_tower.project.weight)
    groups = inheriting(
        model, fit.recipe.train.model_copy(update={"known_lr_factor": 0.5}), known(model, fit.recipe, towers)
    )
    of = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert of[id(model.words.weight)] == of[id(model.layers[0].query.weight)] == 0.002
    assert of[id(model.layers[0].across_query.weight)] == of[id(model.layers[1].fc1.weight)] == 0.004


@torch.no_grad()
def test_the_loss_asks_for_every_word_and_the_end() -> None:
    model = made()
    memory = looked(model)
    words = torch.tensor([[[2, 3, PADDING]], [[4, Captioner.UNKNOWN, 5]]])
    starts = torch.tensor([[0], [1]])
    logits = model.logits(model(starts, words.clamp(min=0), memory)).log_softmax(-1)
    asked = [(0, 0, 2), (0, 1, 3), (0, 2, 1), (1, 0, 4), (1, 2, 5), (1, 3, 1)]
    expected = -torch.stack([logits[picture, 0, at, word] for picture, at, word in asked]).mean()
    assert torch.allclose(caption_loss(model, starts, words, memory), expected, atol=1e-5)


def test_a_recipe_that_is_wrong_is_told(world: Path) -> None:
    with pytest.raises(UsageError, match="capton"):
        begin(world, "train.captons_per_image=1")
    with pytest.raises(EncoderError, match="width = 64: the text tower's words"):
        begin(world, "captioner.width=64")
    with pytest.raises(EncoderError, match=r"captioner\.words is given by"):
        begin(world, "captioner.words=64")
    with pytest.raises(UsageError, match=r"set train\.starts\.zh"):
        begin(world, 'captioner.starts=["en"]')
