"""Trains a one-tower matcher on frozen towers: image-text matching with hard negatives, and masked words beside it.

    python -m train.one_tower.fit train/recipes/brivl-mini-rerank.toml      # after a kill the same line goes on

The first start caches the regions of every photo. A step draws fresh pairs. The towers' vectors of each recall pairs
from the queue that look like partners and are not; those are read again and join the batch. Inside the batch every
text gets hard pictures, and every picture hard texts. What is kept is a running average of the weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brivl_search.encoders import model_folder
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from train.model.sizes import checkpoint_folder
from train.one_tower.lessons import Lessons
from train.one_tower.losses import hard_groups, masked_words, matching_losses, word_loss
from train.one_tower.measure import Measure, best_weight, figures
from train.one_tower.queue import PairQueue
from train.one_tower.recipe import MatcherRecipe, MatchTraining
from train.one_tower.start import freeze, from_towers, known
from train.recipe import read_recipe
from train.run.cpu import quicken
from train.run.loop import without_model
from train.run.sitting import Learner, Sitting, fast_bf16, inheriting


class Teaching(Learner):
    """What learns, its running average, and the queue."""

    fast: OneTower
    slow: OneTower

    def __init__(self, model: OneTower, lessons: Lessons, cfg: MatchTraining) -> None:
        super().__init__(model, cfg.average)
        self.lessons, self.cfg = lessons, cfg
        self.queue = PairQueue(self.cfg.queue_size, lessons.encoder.dim)
        tokenizer = lessons.tokenizer
        special = [tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id]
        self.special = torch.tensor([number for number in special if number is not None])

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
        """Photos, captions and both towers' vectors of a step: fresh pairs, then those the queue recalls."""
        cfg, table = self.cfg, self.lessons.image_vectors()
        photos, drawn = self.lessons.draw(step)
        captions = drawn[:, 0]
        texts = self.lessons.text_vectors(captions)
        images, owners = table[photos], torch.from_numpy(photos)
        slots = self.queue.recall(images, texts, owners, cfg.recalled, cfg.temperature) if cfg.recalled else owners[:0]
        more = self.queue.photos[slots], self.queue.captions[slots], self.queue.texts[slots], self.queue.images[slots]
        self.queue.enqueue(images, texts, owners, torch.from_numpy(captions))
        return (
            np.concatenate([photos, more[0].numpy()]),
            np.concatenate([captions, more[1].numpy()]),
            torch.cat([texts, more[2]]),
            torch.cat([images, more[3]]),
        )

    def loss(self, step: int, *, bf16: bool) -> Tensor:
        """The loss of a step; `parts` says what it is made of."""
        cfg, lessons = self.cfg, self.lessons
        photos, captions, text_keys, image_keys = self.batch(step)
        groups = hard_groups(text_keys, image_keys, torch.from_numpy(photos), cfg.negatives, cfg.temperature)
        features = lessons.views(photos, np.random.default_rng((cfg.seed, 2, step)))
        ids, mask = lessons.tokens(captions)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            images = self.fast.images(features, lessons.boxes)
            matching, ranking = matching_losses(self.fast, self.fast.texts(ids, mask), images, groups)
            parts = {"matching": cfg.match_weight * matching, "ranking": cfg.rank_weight * ranking}
            if cfg.word_weight:
                fresh = torch.arange(cfg.batch)
                mask_id = lessons.tokenizer.mask_id or 0
                new, wanted = masked_words(
                    ids[: cfg.batch], mask[: cfg.batch], cfg.masked, mask_id, lessons.tokenizer.size, self.special
                )
                parts["words"] = cfg.word_weight * word_loss(
                    self.fast, new, wanted, mask[: cfg.batch], images.rows(fresh)
                )
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        return torch.stack([*parts.values()]).sum()


def begin(recipe: MatcherRecipe, encoder: BriVLEncoder) -> OneTower:
    """The matcher at the recipe's start.

    Raises:
        EncoderError: its sizes are wrong, or do not fit the towers.
    """
    theirs = encoder.config.text.backbone
    inherits = {
        "name": "matcher", "vocab_size": theirs.get("vocab_size"), "width": theirs.get("hidden_size", 768),
        "heads": theirs.get("num_attention_heads", 12), "feedforward": theirs.get("intermediate_size", 3072),
        "max_length": encoder.config.text.max_length, "region_size": encoder.image_tower.project.in_features,
        "regions": encoder.regions_fingerprint,
    }  # fmt: skip
    config = MatcherConfig.from_dict({"kind": MatcherConfig.KIND, **inherits, **recipe.matcher})
    model = OneTower(config)
    from_towers(model, encoder.text_tower, encoder.image_tower)
    freeze(model, recipe.train.frozen_text_layers)
    return model


class Fit(Sitting):
    """A sitting of a matcher."""

    def __init__(self, recipe: MatcherRecipe, base: Path) -> None:
        self.recipe, run = recipe, Path(recipe.run)
        cfg = recipe.train
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        folder = checkpoint_folder(str(recipe.init.checkpoint), base)
        encoder = BriVLEncoder(folder, device="cpu", precision="bf16" if fast_bf16(cfg) else "fp32")
        model = begin(recipe, encoder)
        self.lessons = Lessons(recipe, base, encoder)
        self.lessons.regions.make(cfg.views)
        self.teaching = Teaching(model, self.lessons, cfg)
        layers = int(encoder.text_tower.backbone.config.num_hidden_layers)
        self.measures = [self._measure(name) for name in ("choose", "val") if self.lessons.parts[name]]
        super().__init__(run, cfg, self.teaching, inheriting(model, cfg, known(model, layers)), "matching")

    def _measure(self, part: str) -> Measure:
        has = {name for photo in self.lessons.parts[part] for name in self.lessons.photos[photo].captions}
        fields = [name for name in self.recipe.train.measured if name in has] or sorted(has)
        return Measure(self.lessons, part, fields, each=1, top=self.recipe.train.top)

    def measure(self) -> dict[str, Any]:
        """Figures of the average; the best one so far by the photos that choose becomes the run's matcher."""
        found: dict[str, Any] = {}
        weight, score = 0.0, float(self.step)
        for measure in self.measures:
            scored = measure.scored(self.teaching.slow, bf16=self.bf16)
            if measure.name == "choose" or len(self.measures) == 1:
                weight, score = best_weight(scored)
            found[measure.name] = figures(scored, weight)
        if score >= self.best:
            self.best = score
            self._save(weight, found)
        return {"cosine_weight": weight, **found}

    def _save(self, weight: float, found: dict[str, Any]) -> None:
        facts = {"recipe": without_model(self.recipe.raw), "step": self.step, "r_at_1": found}
        config = replace(self.teaching.slow.config, cosine_weight=weight, training=facts)
        model_folder.save(self.run / "matcher", config, self.teaching.slow, self.lessons.tokenizer)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--stop-after", type=int, help="end at this step (the schedule stays)")
    args = parser.parse_args(argv)
    quicken()
    fit = Fit(read_recipe(args.recipe, args.set, MatcherRecipe), args.recipe.resolve().parent)
    fit.go(args.stop_after)
    print(f"{fit.run / 'matcher'}: after {fit.step} steps")


if __name__ == "__main__":
    main()
