"""Drawn pictures of coloured shapes with captions, and two towers that know nothing of them: for trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.brivl.checkpoint import save_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from tests.support.pictures import COLOURS, draw
from tests.support.tiny import tiny_model, write_vocab

COLOUR, SHAPE = ("red", "green", "blue"), {"circle": "圆", "square": "方", "cross": "十字"}
TRAIN, CHOOSE, VAL = 54, 9, 9


def make_world(folder: Path) -> None:
    """Writes `photos` (54 to train on, 9 to choose by, 9 held out) and `towers` into a folder."""
    things = [(colour, shape) for colour in COLOUR for shape in SHAPE]
    (folder / "photos").mkdir()
    with (folder / "photos" / "captions.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(TRAIN + CHOOSE + VAL):
            colour, shape = things[number % 9]
            draw(colour, shape, (64, 64), number).save(folder / "photos" / f"{number}.png")
            zh = f"一只{COLOURS[colour][0]}的{SHAPE[shape]}"
            row = {"image": f"{number}.png", "zh": [zh], "en": [f"a {colour} {shape}", f"{shape} in {colour}"]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    torch.manual_seed(0)
    config = ModelConfig.from_dict(tiny_model())
    image, text = ImageTower(config.image, config.dim), TextTower(config.text, config.dim)
    pixels = np.stack([load_pixels(str(folder / "photos" / f"{at}.png"), config.image.pixels) for at in range(36)])
    with torch.no_grad():  # statistics as after a training: without them a random CNN's features hardly differ
        for module in image.backbones.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
                module.train()
        for _ in range(3):
            image.backbones[0](torch.from_numpy(pixels))
    save_checkpoint(folder / "towers", config, image, text, TextTokenizer(write_vocab(folder / "words"), 16))


def stop_changes_nothing(world: Path, begin: Callable[..., Any], *changes: str) -> None:
    """A run of six steps that is stopped after three and begun again ends as one that was not.

    Args:
        world: of `make_world`, with a recipe of `begin`.
        begin: the world and changes of the recipe → a sitting.
        changes: beside those of its length.
    """
    run = ["train.steps=6", "train.eval_every=3", f"cache={json.dumps(str(world / 'run' / 'cache'))}", *changes]
    whole = begin(world, *run, f"run={json.dumps(str(world / 'whole'))}")
    whole.go()
    half = [*run, f"run={json.dumps(str(world / 'half'))}"]
    begin(world, *half).go(stop_after=3)
    again = begin(world, *half)
    assert again.step == 3
    again.go()
    for name, value in whole.teaching.state_dict().items():
        assert torch.equal(value, again.teaching.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (world / "half" / "log.jsonl").read_text().splitlines()]
    assert steps == [3, 6]
