"""A recipe's data: photos of `[[data]]` or pairs of `[[shards]]`, as batches of steps; and the validation photos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from train import distributed
from train.data.check import check_words, usable
from train.data.features import cached_views
from train.data.photos import Augment, Photo, Photos, StepDataset, held_out, read_photos
from train.data.stream import ShardSteps, read_sources
from train.model.kinds.base import Kind
from train.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """What training reads, and what validation does.

    Attributes:
        steps: a batch for each step.
        photos: training and validation photos; of a recipe with shards, the validation photos alone.
        general: photos of `[[general]]`, for which nothing is chosen.
        val_cached, general_cached: feature maps of the validation photos and the general ones behind the frozen blocks;
            None: they are read as pixels.
    """

    steps: StepDataset | ShardSteps
    photos: Photos
    general: list[Photo]
    val_cached: np.ndarray | None
    general_cached: np.ndarray | None


def build_data(recipe: Recipe, base: Path, kind: Kind, *, bf16: bool, rank: int, processes: int) -> TrainingData:
    """Reads the tables and makes what is cached.

    Args:
        recipe: whose data.
        base: folder of the recipe; its paths are relative to it.
        kind: the towers, whose frozen blocks make the cached feature maps, and their words.
        bf16: whether feature maps are computed in bfloat16.
        rank, processes: of this process and how many there are.

    Raises:
        CorpusError: there is nothing to train on.
    """

    def shown(line: str) -> None:
        if not rank:
            print(line, flush=True)

    cfg, pixels, tokenizer, run = recipe.train, kind.pixels, kind.tokenizer, Path(recipe.run)
    photos = held_out(recipe.data, base) if recipe.shards else read_photos(recipe.data, base)
    with distributed.first_process_first():  # it remembers what it finds
        photos = usable(photos, run / "looked-at.json", shown)
        general = held_out(recipe.general, base)
        general = usable(general, run / "looked-at-general.json", shown)
    check_words([*photos.train, *photos.val], tokenizer, shown)
    packed = pixels.resize == "patches"  # they lie in a square like bytes, and can be neither mirrored nor coloured
    colours = (0.0, 0.0, 0.0) if packed else (cfg.jitter, cfg.hue, cfg.grey)
    augment = Augment(pixels, cfg.crop_scale, *colours)
    cached = val_cached = general_cached = None
    if cfg.cached_blocks:
        folder = Path(recipe.cache or run / "cache")
        views = partial(
            cached_views,
            folder,
            kind.towers.image.eval(),
            blocks=cfg.cached_blocks,
            pixels=pixels,
            augment=augment,
            bf16=bf16,
        )
        with distributed.first_process_first():
            cached = views(photos.train, views=cfg.views)
            val_cached = views(photos.val, views=1)
            general_cached = views(general.val, views=1) if general.val else None
    common: dict[str, Any] = {
        "batch": cfg.batch,
        "captions": cfg.captions_per_image,
        "seed": cfg.seed,
        "pixels": pixels,
        "augment": augment,
        "plain_view": cfg.plain_view,
        "token_dropout": cfg.token_dropout,
        "flip": 0.0 if packed else cfg.flip,
        "rank": rank,
        "processes": processes,
    }
    steps: StepDataset | ShardSteps
    if recipe.shards:
        with distributed.first_process_first():  # it makes the indexes that the others then find
            sources = read_sources(recipe.shards, base, run / "indexes")
        steps = ShardSteps(sources, tokenizer, buffer=cfg.shuffle_buffer, **common)
    else:
        steps = StepDataset(photos.train, tokenizer, cached=cached, **common)
    return TrainingData(steps, photos, general.val, val_cached, general_cached)
