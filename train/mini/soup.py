"""Averages the weights of checkpoints that started from the same one: a "model soup" (Wortsman et al., ICML 2022).

    python -m train.mini.soup brivl_search/models/brivl-mini runs/a/checkpoint=0.8 runs/start=0.2

Runs that start together end in one valley of the loss. The middle of it generalises better than its slopes, for nothing
at inference. Checkpoints of other sizes or with another tokenizer are refused. Writes float16; --int8 keeps large
matrices in 8 bits. Of one checkpoint it is a copy. With `--text runs/a=0.6 runs/b=0.4` the text tower comes from these,
and the image tower alone from the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Part:
    """Checkpoints and their shares, which add up to 1."""

    sources: list[Path]
    shares: list[float]

    @classmethod
    def of(cls, given: Sequence[str]) -> Part:
        """From FOLDER or FOLDER=WEIGHT, each.

        Raises:
            SystemExit: a weight is no number.
        """
        pairs = [text.rpartition("=") if "=" in text else (text, "=", "1") for text in given]
        try:
            weights = [float(weight) for _, _, weight in pairs]
        except ValueError as error:
            raise SystemExit(f"a weight is a number, as in runs/a/checkpoint=0.4 ({error})") from None
        return cls([Path(folder) for folder, _, _ in pairs], [weight / sum(weights) for weight in weights])

    def facts(self) -> list[dict[str, object]]:
        """For the checkpoint's config.json."""
        trained = [read_config(source).training for source in self.sources]
        return [
            {"share": round(share, 4), "run": facts.get("recipe", {}).get("run"), "step": facts.get("step")}
            for share, facts in zip(self.shares, trained, strict=True)
        ]


def cook(target: Path, both: Part, *, text: Part | None = None, int8: bool = False) -> None:
    """Writes the weighted mean of checkpoints to `target`; settings and model card are the first one's.

    Args:
        target: a folder.
        both: of both towers, or of the image tower alone where `text` is given.
        text: of the text tower.
        int8: keep large matrices in 8 bits.

    Raises:
        SystemExit: sizes or tokenizers differ.
    """
    first, config = both.sources[0], read_config(both.sources[0])
    for source in [*both.sources, *(text.sources if text else [])]:
        other = read_config(source)
        alone = text is not None and source not in both.sources  # its image tower is not taken
        if shape(other if not alone else replace(other, image=config.image)) != shape(config):
            raise SystemExit(f"{source} is a model of other sizes than {first}: they cannot be averaged")
        if (source / "tokenizer.json").read_bytes() != (first / "tokenizer.json").read_bytes():
            raise SystemExit(f"{source} has another tokenizer than {first}: they cannot be averaged")
    towers: dict[TowerName, nn.Module] = {
        "image": ImageTower(config.image, config.dim),
        "text": TextTower(config.text, config.dim),
    }
    for name, tower in towers.items():
        part, states = text if text and name == "text" else both, []
        for source in part.sources:
            load_tower(source, name, tower)
            states.append({key: tensor.clone() for key, tensor in tower.state_dict().items()})
        tower.load_state_dict(average(states, part.shares))
    training = {**config.training, "val": None, "averaged": both.facts()}
    if text:
        training["averaged_text"] = text.facts()
    tokenizer = TextTokenizer(first, config.text.max_length)
    config = replace(config, calibration=None, training=training)
    save_checkpoint(target, config, towers["image"], towers["text"], tokenizer, int8=int8)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("checkpoints", nargs="+", metavar="FOLDER[=WEIGHT]")
    parser.add_argument("--text", nargs="+", metavar="FOLDER[=WEIGHT]", help="of the text tower, if it has others")
    parser.add_argument("--int8", action="store_true", help="keep large matrices in 8 bits")
    args = parser.parse_args(argv)
    text = Part.of(args.text) if args.text else None
    cook(args.target, Part.of(args.checkpoints), text=text, int8=args.int8)
    print(f"wrote {args.target}")


if __name__ == "__main__":
    main()
