"""Averages the weights of checkpoints that started from the same one: a "model soup" (Wortsman et al., ICML 2022).

    python -m train.mini.soup brivl_search/models/brivl-mini runs/a/checkpoint=0.4 runs/b/checkpoint=0.4 runs/start=0.2

Runs that start together end in one valley of the loss; the middle of it generalises better than its slopes, for nothing
at inference. Checkpoints of other sizes or with another tokenizer are refused. Writes float16, with
--int8 large matrices in 8 bits. Of one checkpoint it is a copy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from brivl_search.encoders.brivl.checkpoint import TowerName, load_tower, read_config, save_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer


def shape(config: ModelConfig) -> tuple[object, ...]:
    """What two checkpoints must share to be averaged: sizes, not the dropout they were trained with."""
    image, text = config.image, config.text
    heads = tuple(replace(head, dropout=0.0, mlp_dropout=0.0) for head in (image.head, text.head))
    sizes = {k: v for k, v in text.backbone.items() if "dropout" not in k}
    pictures = (repr(image.backbones), image.grids, image.width, image.members, image.pixels)
    classes = (image.classes, tuple(image.class_backbones))
    return config.dim, heads, sizes, pictures, classes, text.max_length


def average(states: Sequence[dict[str, torch.Tensor]], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """Σ share · state in float32; tensors that are not floating point are the first state's."""
    mean = {}
    for name, first in states[0].items():
        floats = first.is_floating_point()
        parts = [share * state[name].float() for state, share in zip(states, shares, strict=True)]
        mean[name] = torch.stack(parts).sum(0) if floats else first
    return mean


def cook(target: Path, sources: Sequence[Path], weights: Sequence[float], *, int8: bool = False) -> None:
    """Writes the weighted mean of `sources` to `target`; settings and model card are the first one's."""
    shares = [weight / sum(weights) for weight in weights]
    configs = [read_config(source) for source in sources]
    for source, config in zip(sources, configs, strict=True):
        if shape(config) != shape(configs[0]):
            raise SystemExit(f"{source} is a model of other sizes than {sources[0]}: they cannot be averaged")
        if (source / "tokenizer.json").read_bytes() != (sources[0] / "tokenizer.json").read_bytes():
            raise SystemExit(f"{source} has another tokenizer than {sources[0]}: they cannot be averaged")
    config = configs[0]
    towers: dict[TowerName, nn.Module] = {
        "image": ImageTower(config.image, config.dim),
        "text": TextTower(config.text, config.dim),
    }
    for name, tower in towers.items():
        states = []
        for source in sources:
            load_tower(source, name, tower)
            states.append({key: tensor.clone() for key, tensor in tower.state_dict().items()})
        tower.load_state_dict(average(states, shares))
    of = [
        {"share": round(share, 4), "run": c.training.get("recipe", {}).get("run"), "step": c.training.get("step")}
        for share, c in zip(shares, configs, strict=True)
    ]
    training = {**config.training, "val": None, "averaged": of}
    tokenizer = TextTokenizer(sources[0], config.text.max_length)
    config = replace(config, calibration=None, training=training)
    save_checkpoint(target, config, towers["image"], towers["text"], tokenizer, int8=int8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("checkpoints", nargs="+", metavar="FOLDER[=WEIGHT]")
    parser.add_argument("--int8", action="store_true", help="keep large matrices in 8 bits")
    args = parser.parse_args()
    pairs = [text.rpartition("=") if "=" in text else (text, "=", "1") for text in args.checkpoints]
    try:
        weights = [float(weight) for _, _, weight in pairs]
    except ValueError as error:
        raise SystemExit(f"a weight is a number, as in runs/a/checkpoint=0.4 ({error})") from None
    cook(args.target, [Path(folder) for folder, _, _ in pairs], weights, int8=args.int8)
    print(f"wrote {args.target}")


if __name__ == "__main__":
    main()
