"""Figures of the averages between where a third round began and where it ended, to choose how far to go.

    python -m train.mini.between train/recipes/brivl-mini-3.toml runs/brivl-mini-3/start runs/brivl-mini-3/checkpoint

What a model knew is partly lost while it learns something new; an average of its weights before and after keeps most of
both (WiSE-FT: Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", CVPR 2022). The figures are of cached maps and
without the correction of hubs. `train.mini.soup` writes the average that is chosen. Both text towers must be the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from brivl_search.encoders.brivl.checkpoint import load_tower
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.mini.given import read_lessons
from train.mini.head_recipe import HeadsRecipe
from train.mini.labelled import all_names
from train.mini.progress import Progress
from train.mini.soup import average
from train.recipe import read_recipe


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="where it began, and where it ended")
    parser.add_argument("--shares", default="0,0.3,0.5,0.7,0.85,1", help="of the ends, comma-separated")
    args = parser.parse_args(argv)
    if len(args.checkpoints) < 2:
        parser.error("give the checkpoint where it began and where it ended, once or more")
    recipe, base = read_recipe(args.recipe, [], HeadsRecipe), args.recipe.resolve().parent
    bf16 = has_fast_bf16(pick_device("cpu")) if recipe.train.bf16 is None else recipe.train.bf16
    lessons = read_lessons(recipe, base, bf16=bf16)
    progress = Progress(lessons.pictures, lessons.maps, all_names(lessons.pictures), lessons.names)
    tower, states = ImageTower(recipe.config.image, recipe.config.dim).eval(), []
    for folder in args.checkpoints:
        load_tower(folder, "image", tower)
        states.append({name: tensor.clone() for name, tensor in tower.state_dict().items()})
    for share in map(float, args.shares.split(",")):
        ends = len(states) - 1
        tower.load_state_dict(average(states, [1 - share, *[share / ends] * ends]))
        print(f"share {share:g}")
        for title, value in progress.measure(tower, lessons.said, bf16=bf16).items():
            print(f"  {title:45} {value}", flush=True)


if __name__ == "__main__":
    main()
