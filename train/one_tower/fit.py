"""Trains a one-tower matcher on frozen towers: image-text matching with hard negatives, and masked words, or regions.

    python -m train.one_tower.fit train/recipes/brivl-mini-rerank.toml      # after a kill the same line goes on

The first start caches the regions of every photo. A step draws fresh pairs. The towers' vectors of each recall pairs
from the queue that look like partners and are not; those are read again and join the batch. Inside the batch every
text gets hard pictures, and every picture hard texts. Where words and regions are aligned (`matcher.align_size`), all
pairs of a step teach that. What is kept is a running average of the weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.one_tower.checkpoint import save_matcher
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError
from train.one_tower.lessons import Lessons
from train.one_tower.losses import (
    alignment_loss,
    hard_groups,
    masked_regions,
    masked_words,
    matching_losses,
    region_loss,
    word_loss,
)
from train.one_tower.measure import Measure, Weights, best_weights, figures
from train.one_tower.queue import PairQueue
from train.one_tower.recipe import MatcherRecipe, MatchTraining
from train.one_tower.start import freeze, from_towers, known
from train.run.command import asked
from train.run.cpu import quicken
from train.run.loop import without_model
from train.run.sitting import Learner, Sitting, frozen_towers, inheriting


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
        self.near = min(self.cfg.joint_batch or self.cfg.batch, self.cfg.batch)  # fresh pairs that joint layers read

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
        """Photos, captions and both towers' vectors of a step: fresh pairs, then those the queue recalls."""
        cfg = self.cfg
        photos, drawn = self.lessons.draw(step)
        captions = drawn[:, 0]
        if step < cfg.joint_from:
            none = torch.zeros(0, self.lessons.encoder.dim)
            return photos, captions, none, none
        texts, images, owners = self._keys(photos[: self.near], captions[: self.near])
        slots = self.queue.recall(images, texts, owners, cfg.recalled, cfg.temperature) if cfg.recalled else owners[:0]
        more = self.queue.photos[slots], self.queue.captions[slots], self.queue.texts[slots], self.queue.images[slots]
        self.queue.enqueue(images, texts, owners, torch.from_numpy(captions[: self.near]))
        return (
            np.concatenate([photos, more[0].numpy()]),
            np.concatenate([captions, more[1].numpy()]),
            torch.cat([texts, more[2]]),
            torch.cat([images, more[3]]),
        )

    def _keys(self, photos: np.ndarray, captions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        owners = torch.from_numpy(photos)
        return self.lessons.text_vectors(captions), self.lessons.image_vectors()[photos], owners

    def loss(self, step: int, *, bf16: bool) -> Tensor:
        """The loss of a step; `parts` says what it is made of."""
        cfg, lessons = self.cfg, self.lessons
        photos, captions, text_keys, image_keys = self.batch(step)
        owners = torch.from_numpy(photos)
        features = lessons.views(photos, np.random.default_rng((cfg.seed, 2, step)))
        ids, mask = lessons.tokens(captions)
        dropped = torch.rand(ids.shape) < cfg.word_dropout
        seen = ids.masked_fill(dropped & mask & ~torch.isin(ids, self.special), lessons.tokenizer.mask_id or 0)
        parts: dict[str, Tensor] = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            texts, images = self.fast.texts(seen, mask), self.fast.images(features, lessons.boxes)
            if (align := self.fast.align) is not None and cfg.align_weight:
                words = align.of_texts(texts.tokens, texts.mask)
                table = align.table(words, align.of_pictures(images.tokens, images.mask))
                parts["alignment"] = cfg.align_weight * alignment_loss(table, owners)
            if step >= cfg.joint_from:
                near = torch.cat([torch.arange(self.near), torch.arange(cfg.batch, len(photos))])
                groups = hard_groups(text_keys, image_keys, owners[near], cfg.negatives, cfg.temperature)
                matching, ranking = matching_losses(self.fast, texts.rows(near), images.rows(near), groups)
                parts |= {"matching": cfg.match_weight * matching, "ranking": cfg.rank_weight * ranking}
                task, fresh = masked_task(cfg, step), torch.arange(self.near)
                if task == "regions":
                    told, shown = self.fast.texts(ids[fresh], mask[fresh]), features[: self.near]
                    asked = masked_regions(torch.ones(shown.shape[:2], dtype=torch.bool), cfg.masked_regions)
                    parts["regions"] = cfg.region_weight * region_loss(self.fast, told, shown, lessons.boxes, asked)
                if task == "words":
                    new, wanted = masked_words(
                        ids[fresh], mask[fresh], cfg.masked, lessons.tokenizer.mask_id or 0, lessons.tokenizer.size,
                        self.special,
                    )  # fmt: skip
                    beside = images.rows(fresh)
                    parts["words"] = cfg.word_weight * word_loss(self.fast, new, wanted, mask[fresh], beside)
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        return torch.stack([*parts.values()]).sum()


def masked_task(cfg: MatchTraining, step: int) -> str:
    """What a step masks: "words", "regions", or "" for nothing. Never both in one batch, as UNITER; they take turns."""
    tasks = [name for name, weight in (("words", cfg.word_weight), ("regions", cfg.region_weight)) if weight]
    return tasks[step % len(tasks)] if tasks else ""


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
        "regions": encoder.regions_fingerprint, "texts": encoder.words_fingerprint,
        "bank_regions": sum(grid * grid for grid in encoder.config.image.grids),
        "masked_regions": bool(recipe.train.region_weight),
    }  # fmt: skip
    config = MatcherConfig.from_dict({"kind": MatcherConfig.KIND, **inherits, **recipe.matcher})
    if recipe.train.region_weight and not config.masked_regions:
        raise EncoderError("train.region_weight asks for matcher.masked_regions: leave it out, or set it to true")
    if config.shared_layers > recipe.train.frozen_text_layers:
        raise EncoderError(
            f"matcher.shared_layers = {config.shared_layers}: only frozen layers can stay the text tower's; set "
            f"train.frozen_text_layers to as many"
        )
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
        encoder = frozen_towers(recipe, base)
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
        cfg = self.recipe.train
        return Measure(self.lessons, part, fields, each=cfg.measured_captions, top=cfg.top)

    def curves(self, line: dict[str, Any]) -> dict[str, dict[str, float]]:
        """R@1 of unseen photos, after re-ordering and of the towers alone."""
        part = next((name for name in ("val", "choose") if name in line), "")
        return {f"{part}, R@1": {
            name + end: values[at] for name, values in line[part].items() for at, end in ((1, ""), (0, ", towers"))
        }} if part else {}  # fmt: skip

    def measure(self) -> dict[str, Any]:
        """Figures of the average; the best one so far by the photos that choose becomes the run's matcher."""
        found: dict[str, Any] = {}
        model = self.teaching.slow
        if model.bank is not None:
            self.lessons.fill_bank(model, bf16=self.bf16)
        weights, score = Weights(), float(self.step)
        for measure in self.measures:
            scored = measure.scored(model, bf16=self.bf16)
            if measure.name == "choose" or len(self.measures) == 1:
                weights, score = best_weights(scored)
            found[measure.name] = figures(scored, weights)
        if score >= self.best:
            self.best = score
            self._save(weights, found)
        return {"cosine_weight": weights.cosine, "hub_weight": weights.hubs, **found}

    def _save(self, weights: Weights, found: dict[str, Any]) -> None:
        facts = {"recipe": without_model(self.recipe.raw), "step": self.step, "r_at_1": found}
        config = replace(
            self.teaching.slow.config, cosine_weight=weights.cosine, hub_weight=weights.hubs, training=facts
        )
        save_matcher(self.run / "matcher", config, self.teaching.slow, self.lessons.tokenizer)


def main(argv: list[str] | None = None) -> None:
    recipe, base, stop_after = asked(__doc__, MatcherRecipe, argv)
    quicken()
    fit = Fit(recipe, base)
    fit.go(stop_after)
    print(f"{fit.run / 'matcher'}: after {fit.step} steps")


if __name__ == "__main__":
    main()
