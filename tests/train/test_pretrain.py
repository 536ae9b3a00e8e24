"""`pretrain.py` on pictures the test draws: it learns, and a killed run goes on with the same loss curve."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.checkpoint import load_tower
from brivl_search.encoders.brivl.config import ModelConfig
from tests.support.folders import REPO
from tests.support.recipes import training
from tests.support.tiny import tiny_model, write_vocab
from tests.support.warm import Warm
from train import pretrain
from train.data.photos import StepDataset, read_photos
from train.model.build import build_towers, objective
from train.model.start import load_momentum
from train.recipe import Data

COLOURS = {"red": ("红色", (220, 30, 30)), "green": ("绿色", (30, 180, 40)), "blue": ("蓝色", (40, 60, 230))}
SHAPES = {"circle": "圆形", "square": "方块", "cross": "十字形"}
KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
SMALL = {"batch": 12, "queue_size": 24}  # for runs that need not learn


def draw(path: Path, colour: str, shape: str, rng: np.random.Generator) -> None:
    image = Image.new("RGB", (64, 64), tuple(int(v) for v in rng.integers(150, 256, 3)))
    pen = ImageDraw.Draw(image)
    x, y, r = (int(v) for v in (*rng.integers(24, 40, 2), rng.integers(14, 22)))
    ink = COLOURS[colour][1]
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=ink)
    else:
        pen.rectangle((x - r, y - 4, x + r, y + 4), fill=ink)
        pen.rectangle((x - 4, y - r, x + 4, y + r), fill=ink)
    image.save(path, quality=92)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 training pictures of 9 kinds, and 9 validation pictures, one of each kind (the last rows)."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(189):
            colour, shape = KINDS[number % 9]
            draw(folder / f"{number}.jpg", colour, shape, rng)
            row = {"image": f"{number}.jpg", "zh": [f"{COLOURS[colour][0]}的{SHAPES[shape]}"]}
            row["en"] = [f"a {colour} {shape}", f"photo of the {colour} {shape}"]
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return folder


def write_recipe(folder: Path, photos: Path, *, backbone: str = "test_resnet", **train: object) -> Path:
    write_vocab(folder / "vocab")
    model = tiny_model()
    model["image"]["freeze_bn"] = False  # from scratch there are no statistics to keep
    model["image"]["backbones"] = [{"name": backbone}]
    settings = {
        "loss": "moco",
        "seed": 3,
        "steps": 90,
        "batch": 36,
        "captions_per_image": 2,
        "queue_size": 72,
        "momentum": 0.9,
        "in_batch_negatives": True,
        "lr": 1e-3,
        "warmup": 10,
        "crop_scale": 0.8,
        "jitter": 0.1,
        "eval_every": 45,
        "workers": 0,
        "bf16": False,
        "device": "cpu",
        **train,
    }
    recipe = {
        "run": str(folder / "run"),
        "init": {"tokenizer": "vocab"},
        "model": model,
        "train": settings,
        "data": [{"folder": str(photos), "captions": {"zh": 0.5, "en": 0.5}, "hold_out_last": 9}],
    }
    path = folder / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    return path


def to_toml(table: dict) -> str:
    """Inline TOML of plain values; enough for a recipe."""

    def value(v: object) -> str:
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + "}"
        if isinstance(v, list):
            return "[" + ", ".join(value(x) for x in v) + "]"
        return json.dumps(v)

    return "".join(f"{key} = {value(v)}\n" for key, v in table.items())


def log_of(recipe: Path) -> list[dict]:
    """The log without its first line, the score of the start."""
    lines = [json.loads(line) for line in (recipe.parent / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" not in line] == [0]
    return lines[1:]


@pytest.mark.slow
def test_a_tiny_run_learns(tmp_path: Path, photos: Path, curves: None) -> None:
    recipe = write_recipe(tmp_path, photos)
    pretrain.main([str(recipe)])
    log = log_of(recipe)
    assert log[-1]["step"] == 90 and log[-1]["loss"] < log[0]["loss"] - 1
    final = log[-1]["recall"]
    assert set(final) == {"zh", "en"}  # the last measurement covers every field
    # Chance is 11 % among nine pictures; one picture more or less is 11 points, so the mean of all four decides.
    assert np.mean([final[field][way] for field in ("zh", "en") for way in ("t2i@1", "i2t@1")]) >= 55
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5000
    encoder = load_encoder(str(tmp_path / "run" / "checkpoint"))
    texts = encoder.encode_texts([f"a {colour} {shape}" for colour, shape in KINDS])
    pixels = [np.asarray(Image.open(photos / f"{180 + i}.jpg").convert("RGB").resize((64, 64))) for i in range(9)]
    best = (texts @ encoder.encode_images(np.stack(pixels)).T).argmax(1)
    assert (best == np.arange(9)).mean() >= 0.5
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert config["training"]["recipe"]["train"]["steps"] == 90 and config["training"]["val"]
    pretrain.main([str(recipe), "--export", str(tmp_path / "shipped")])
    assert load_encoder(str(tmp_path / "shipped")).fingerprint == encoder.fingerprint


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_curve(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    short = {"steps": 24, "eval_every": 8, "token_dropout": 0.1, **SMALL}
    whole, parts = write_recipe(tmp_path / "a", photos, **short), write_recipe(tmp_path / "b", photos, **short)
    pretrain.main([str(whole)])
    pretrain.main([str(parts), "--stop-after", "8"])
    pretrain.main([str(parts), "--stop-after", "16"])
    pretrain.main([str(parts)])
    a, b = log_of(whole), log_of(parts)
    assert [line["step"] for line in a] == [line["step"] for line in b] == [8, 16, 20, 24]
    np.testing.assert_allclose([line["loss"] for line in a], [line["loss"] for line in b], rtol=1e-4)
    assert a[-1]["recall"] == b[-1]["recall"]


@pytest.mark.slow
def test_kill_9_loses_only_what_came_after_the_last_checkpoint(tmp_path: Path, photos: Path) -> None:
    recipe = write_recipe(tmp_path, photos, steps=4000, eval_every=10, **SMALL)
    last = tmp_path / "run" / "last.pt"
    with Warm("train.pretrain", [str(recipe)], cwd=REPO, env=os.environ) as process:
        deadline = time.monotonic() + 240
        while not last.is_file() and time.monotonic() < deadline and process.running():
            time.sleep(0.05)
        time.sleep(0.4)  # somewhere between two checkpoints
        process.send(signal.SIGKILL)
        assert process.wait(60).returncode == -signal.SIGKILL
    assert last.is_file()
    before = log_of(recipe)
    pretrain.main([str(recipe), "--stop-after", str((before[-1]["step"] // 10 + 2) * 10)])
    after = log_of(recipe)
    steps = [line["step"] for line in after]
    assert steps == sorted(set(steps)) and steps[-1] > before[-1]["step"]  # no line twice, none missing
    assert steps == list(range(10, steps[-1] + 1, 10))


def test_cached_views_train_the_late_blocks(tmp_path: Path, photos: Path) -> None:
    settings = {"steps": 20, "cached_blocks": [5], "views": 2, **SMALL}
    recipe = write_recipe(tmp_path, photos, backbone="mobilenetv2_035", **settings)
    pretrain.main([str(recipe), "--set", f'cache="{tmp_path / "cache"}"'])
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.npy")}
    assert len(first) == 2  # training and validation photos
    pretrain.main([str(recipe), "--set", f'cache="{tmp_path / "cache"}"', "--set", f'run="{tmp_path / "again"}"'])
    assert first == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("*.npy")}
    a = log_of(recipe)[-1]["loss"]
    assert np.isclose(a, json.loads((tmp_path / "again" / "log.jsonl").read_text().splitlines()[-1])["loss"], rtol=1e-4)


def test_clip_loss_trains_too(tmp_path: Path, photos: Path) -> None:
    recipe = write_recipe(tmp_path, photos, steps=40, eval_every=40, batch=18, loss="clip", learned_temperature=True)
    pretrain.main([str(recipe)])
    log = log_of(recipe)
    assert log[-1]["loss"] < log[0]["loss"]


def test_steps_are_reproducible_and_cover_an_epoch(photos: Path, tmp_path: Path) -> None:
    from brivl_search.corpus.images import PixelSpec
    from brivl_search.encoders.brivl.tokenizer import TextTokenizer

    found = read_photos([Data(folder=str(photos), captions={"zh": 0.5, "en": 0.5}, hold_out_last=9)], tmp_path)
    assert len(found.train) == 180 and len(found.val) == 9
    tokenizer = TextTokenizer(write_vocab(tmp_path / "vocab"), 16)
    options = {"batch": 36, "captions": 2, "seed": 1, "pixels": PixelSpec(64)}
    a, b = (StepDataset(found.train, tokenizer, **options) for _ in range(2))
    assert all((a[7][name] == b[7][name]).all() for name in ("images", "token_ids", "ids"))
    assert sorted(np.concatenate([a.rows(step) for step in range(5)])) == list(range(180))
    assert (a.rows(0) != a.rows(5)).any()  # another epoch, another order
    assert len(a[0]["token_ids"]) == 72


def test_mistakes_in_a_recipe_are_named(tmp_path: Path, photos: Path) -> None:
    recipe = write_recipe(tmp_path, photos, batch=500)
    with pytest.raises(SystemExit, match="batch of 500"):
        pretrain.main([str(recipe)])
    with pytest.raises(SystemExit, match="no checkpoint yet"):
        pretrain.main([str(recipe), "--export", str(tmp_path / "out"), "--set", "train.batch=36"])


def test_dropped_regions_and_channels_leave_a_tower_that_trains() -> None:
    import torch

    from brivl_search.encoders.brivl.config import ModelConfig
    from brivl_search.encoders.brivl.image_tower import ImageTower

    model = tiny_model()
    model["image"] |= {"region_dropout": 0.5, "feature_dropout": 0.3}
    config = ModelConfig.from_dict(model)
    tower = ImageTower(config.image, config.dim).train()
    vectors = tower(torch.zeros(3, 64, 64, 3, dtype=torch.uint8))
    assert vectors.shape == (3, 32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    vectors.sum().backward()


def test_momentum_towers_go_on_from_their_own_copies(tmp_path: Path, photos: Path) -> None:
    """A conversion with --keep-momentum has them; what does not learn stays as in the online towers."""
    start = {"steps": 2, "eval_every": 2, **SMALL}
    recipe = write_recipe(tmp_path, photos, **start)
    pretrain.main([str(recipe)])
    checkpoint = tmp_path / "run" / "checkpoint"
    kept = {name: tensor.float() + 0.5 for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    save_file(kept, checkpoint / "momentum.safetensors")
    config = ModelConfig.from_dict(json.loads((checkpoint / "config.json").read_text()))
    towers = build_towers(config, training(frozen_text_layers=1))
    for name in ("image", "text"):
        load_tower(checkpoint, name, towers.get_submodule(name))
    model = objective(towers, config.dim, training(queue_size=8))
    assert load_momentum(model.slow, towers, checkpoint, ["image", "text"])
    learns = [name for name, parameter in towers.named_parameters() if parameter.requires_grad]
    assert 0 < len(learns) < len(list(towers.parameters()))
    for name, online in towers.named_parameters():
        wanted = kept[name] if name in learns else online
        torch.testing.assert_close(model.slow.get_parameter(name), wanted.detach(), rtol=0, atol=0)
    (checkpoint / "momentum.safetensors").unlink()
    assert not load_momentum(model.slow, towers, checkpoint, ["image", "text"])
