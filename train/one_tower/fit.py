"""Trains a one-tower matcher on frozen towers: image-text matching with hard negatives, and masked words beside it.

    python -m train.one_tower.fit train/recipes/brivl-mini-rerank.toml      # after a kill the same line goes on

The first start caches the regions of every photo. A step draws fresh pairs. The towers' vectors of each recall pairs
from the queue that look like partners and are not; those are read again and join the batch. Inside the batch every
text gets hard pictures, and every picture hard texts. Where words and regions are aligned (`matcher.align_size`), all
pairs of a step teach that. What is kept is a running average of the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.device import has_fast_bf16
from brivl_search.encoders.one_tower.checkpoint import save_matcher
from brivl_search.encoders.one_tower.config import KIND, MatcherConfig
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError
from train.model.sizes import checkpoint_folder
from train.one_tower.lessons import Lessons
from train.one_tower.losses import alignment_loss, hard_groups, masked_words, matching_losses, word_loss
from train.one_tower.measure import Measure, Weights, best_weights, figures
from train.one_tower.queue import PairQueue
from train.one_tower.recipe import MatcherRecipe
from train.one_tower.start import freeze, from_towers, known
from train.recipe import read_recipe
from train.run.cpu import quicken
from train.run.loop import NotFiniteError, rate_at, without_model
from train.run.show import Bar
from train.run.state import LAST, load_state, save_state, trim_log
from train.run.stop import Stop


class Teaching(nn.Module):
    """What learns, its running average, and the queue."""

    def __init__(self, model: OneTower, lessons: Lessons) -> None:
        super().__init__()
        self.lessons, self.cfg = lessons, lessons.cfg
        self.fast, self.slow = model, copy.deepcopy(model).requires_grad_(False).eval()
        self.queue = PairQueue(self.cfg.queue_size, lessons.encoder.dim)
        tokenizer = lessons.tokenizer
        special = [tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id]
        self.special = torch.tensor([number for number in special if number is not None])
        self.near = min(self.cfg.joint_batch or self.cfg.batch, self.cfg.batch)  # fresh pairs that joint layers read
        self.parts: dict[str, float] = {}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
        """Photos, captions and both towers' vectors of a step: fresh pairs, then those the queue recalls."""
        cfg = self.cfg
        photos, captions = self.lessons.draw(step)
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
                if cfg.word_weight:
                    fresh = torch.arange(self.near)
                    new, wanted = masked_words(
                        ids[fresh], mask[fresh], cfg.masked, lessons.tokenizer.mask_id or 0, lessons.tokenizer.size,
                        self.special,
                    )  # fmt: skip
                    beside = images.rows(fresh)
                    parts["words"] = cfg.word_weight * word_loss(self.fast, new, wanted, mask[fresh], beside)
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        return torch.stack([*parts.values()]).sum()

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Moves the average towards what is learnt; faster in the first steps."""
        momentum = min(self.cfg.average, (1 + step) / (10 + step))
        for kept, new in zip(self.slow.parameters(), self.fast.parameters(), strict=True):
            if new.requires_grad:
                kept.lerp_(new, 1 - momentum)


def learning(model: OneTower, cfg: Any, layers: int) -> list[dict[str, Any]]:
    """AdamW groups: what comes from the text tower has its share of the rate; no decay on biases and norms."""
    inherited = known(model, layers)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = cfg.lr * (cfg.known_lr_factor if name in inherited else 1)
            groups.setdefault((rate, cfg.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": ps, "weight_decay": wd, "lr": rate, "base_lr": rate} for (rate, wd), ps in groups.items()]


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
    }  # fmt: skip
    config = MatcherConfig.from_dict({"kind": KIND, **inherits, **recipe.matcher})
    if config.shared_layers > recipe.train.frozen_text_layers:
        raise EncoderError(
            f"matcher.shared_layers = {config.shared_layers}: only frozen layers can stay the text tower's; set "
            f"train.frozen_text_layers to as many"
        )
    model = OneTower(config)
    from_towers(model, encoder.text_tower, encoder.image_tower)
    freeze(model, recipe.train.frozen_text_layers)
    return model


class Fit:
    """A sitting: from last.pt, or from the start, to the recipe's last step or to where it is stopped."""

    def __init__(self, recipe: MatcherRecipe, base: Path) -> None:
        self.recipe, self.run = recipe, Path(recipe.run)
        cfg = recipe.train
        self.run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        self.bf16 = has_fast_bf16(torch.device("cpu")) if cfg.bf16 is None else cfg.bf16
        folder = checkpoint_folder(str(recipe.init.checkpoint), base)
        encoder = BriVLEncoder(folder, device="cpu", precision="bf16" if self.bf16 else "fp32")
        model = begin(recipe, encoder)
        self.lessons = Lessons(recipe, base, encoder)
        self.lessons.regions.make(cfg.views)
        self.teaching = Teaching(model, self.lessons)
        layers = int(encoder.text_tower.backbone.config.num_hidden_layers)
        self.optimizer = torch.optim.AdamW(learning(model, cfg, layers), betas=(0.9, 0.98), fused=True)
        self.measures = [self._measure(name) for name in ("choose", "val") if self.lessons.parts[name]]
        self.best = -1.0
        self.step, self.best = load_state(self.run / LAST, self.teaching, self.optimizer, torch.device("cpu"))

    def _measure(self, part: str) -> Measure:
        has = {name for photo in self.lessons.parts[part] for name in self.lessons.photos[photo].captions}
        fields = [name for name in self.recipe.train.measured if name in has] or sorted(has)
        return Measure(self.lessons, part, fields, each=1, top=self.recipe.train.top)

    def go(self, stop_after: int | None = None) -> None:
        """Trains, logs, measures and saves."""
        cfg = self.recipe.train
        last = min(cfg.steps, stop_after or cfg.steps)
        trim_log(self.run / "log.jsonl", self.step or -1)
        sums: dict[str, float] = {}
        counted, since = 0, time.perf_counter()
        with Stop() as stop, Bar("matching", cfg.steps, self.step) as bar, (self.run / "log.jsonl").open("a") as log:
            while self.step < last and not stop.asked:
                value = self._update()
                counted += 1
                sums = {name: sums.get(name, 0.0) + part for name, part in self.teaching.parts.items()}
                due = self.step % cfg.eval_every == 0 or self.step == last or bool(stop.asked)
                bar.to(self.step, f"loss {value:.3f}")
                if self.step % 20 == 0 or due:
                    line: dict[str, Any] = {"step": self.step, "s": round((time.perf_counter() - since) / counted, 2)}
                    line |= {name: round(total / counted, 4) for name, total in sums.items()}
                    if due and not stop.asked:
                        line |= self.measure()
                        bar.say(f"step {self.step}: {json.dumps(line)}")
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    sums, counted, since = {}, 0, time.perf_counter()
                if due:
                    save_state(self.run / LAST, self.teaching, self.optimizer, self.step, self.best)
        if stop.asked and self.step < last:
            raise SystemExit(128 + stop.asked)

    def _update(self) -> float:
        """One update; its loss. Raises: NotFiniteError."""
        cfg, teaching = self.recipe.train, self.teaching
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_at(self.step, cfg.steps, cfg.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        teaching.fast.train()
        loss = teaching.loss(self.step, bf16=self.bf16)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss is {value} at step {self.step}: lower train.lr, or set train.bf16=false")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], cfg.clip_grad)
        self.optimizer.step()
        teaching.follow(self.step)
        self.step += 1
        return value

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
