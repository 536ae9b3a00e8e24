"""Trains a captioner on frozen towers: the next word, given the picture and the words before.

    python -m train.captions.fit train/recipes/brivl-mini-captions.toml      # after a kill the same line goes on
    python -m train.captions.measure runs/brivl-mini-captions/captioner

The first start caches the regions of every photo (`train.one_tower.regions`); a matcher's training reads the same ones.
What is kept is a running average of the weights, of the step with the best CIDEr on photos that are not trained on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brivl_search.encoders import model_folder
from brivl_search.encoders.captions.checkpoint import load_model
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.captions.words import Words, choose_words, without_end
from brivl_search.errors import UsageError
from train.captions.draft import Measure, best_weight
from train.captions.losses import PADDING, caption_loss
from train.captions.recipe import CaptionRecipe, CaptionTraining
from train.captions.start import begin, known
from train.one_tower.lessons import Lessons
from train.run.command import asked
from train.run.cpu import quicken
from train.run.loop import without_model
from train.run.sitting import Learner, Sitting, frozen_towers, inheriting


class Teaching(Learner):
    """What learns, and the captions as its words."""

    fast: Captioner
    slow: Captioner

    def __init__(self, model: Captioner, lessons: Lessons, cfg: CaptionTraining) -> None:
        super().__init__(model, cfg.average)
        self.lessons, self.cfg = lessons, cfg
        self.words = Words(lessons.tokenizer, model.kept.tolist())
        longest = model.config.max_length - 1
        self._rows = [row[:longest] for row in self.words.rows([without_end(text) for text in lessons.captions])]
        starts = {name: start_of(name, cfg, model.config) for photo in lessons.photos for name in photo.captions}
        self._starts = np.zeros(len(lessons.captions), np.int64)
        for number, photo in enumerate(lessons.photos):
            for name in photo.captions:
                self._starts[lessons.of(number, name)] = model.config.starts.index(starts[name])

    def captions(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Captions of these numbers (B, N) → first tokens (B, N), and words (B, N, T), `PADDING` behind the end."""
        rows = [self._rows[number] for number in numbers.flat]
        words = np.full((len(rows), max(map(len, rows))), PADDING, np.int64)
        for at, row in enumerate(rows):
            words[at, : len(row)] = row
        return torch.from_numpy(self._starts[numbers]), torch.from_numpy(words.reshape(*numbers.shape, -1))

    def loss(self, step: int, *, bf16: bool) -> Tensor:
        """The loss of a step; `parts` has it as "words"."""
        cfg, lessons = self.cfg, self.lessons
        photos, numbers = lessons.draw(step, cfg.captions_per_image)
        features = lessons.views(photos, np.random.default_rng((cfg.seed, 2, step)))
        vectors = lessons.image_vectors()[photos]
        if cfg.vector_noise:
            noise = torch.randn_like(vectors) * (cfg.vector_noise / vectors.shape[1] ** 0.5)
            vectors = F.normalize(vectors + noise, dim=-1)
        hidden = torch.rand(len(photos)) < cfg.vector_dropout
        starts, words = self.captions(numbers)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            memory = self.fast.look(features, lessons.boxes, vectors)
            memory.mask[:, -1] &= ~hidden
            loss = caption_loss(self.fast, starts, words, memory, cfg.label_smoothing, cfg.token_dropout)
        self.parts = {"words": float(loss.detach())}
        return loss


def start_of(field: str, cfg: CaptionTraining, config: CaptionConfig) -> str:
    """The first token of a caption field. Raises UsageError: the captioner has none for it."""
    found = cfg.starts.get(field, field.partition("_")[0])
    if found not in config.starts:
        raise UsageError(
            f"captions of {field} begin with {found!r}, which captioner.starts does not have "
            f"({', '.join(config.starts)}): name it there, or set train.starts.{field}"
        )
    return found


class Fit(Sitting):
    """A sitting of a captioner."""

    def __init__(self, recipe: CaptionRecipe, base: Path) -> None:
        self.recipe, run = recipe, Path(recipe.run)
        cfg = recipe.train
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        encoder = frozen_towers(recipe, base)
        self.lessons = Lessons(recipe, base, encoder)
        taught = [self.lessons.captions[c] for c in self.lessons.trained_captions()]
        model = begin(recipe, encoder, choose_words(encoder.tokenizer, [without_end(t) for t in taught], cfg.least))
        self.lessons.regions.make(cfg.views)
        self.teaching = Teaching(model, self.lessons, cfg)
        self.measures = {name: Measure(self.lessons, name, cfg.measured) for name in ("choose", "val")}
        super().__init__(run, cfg, self.teaching, inheriting(model, cfg, known(model, recipe, encoder)), "captions")

    def measure(self) -> dict[str, Any]:
        """Figures of the average; the best one so far by the photos that choose becomes the run's captioner."""
        model, cfg = self.teaching.slow.eval(), self.recipe.train
        found, score = {}, float(self.step)  # without photos to measure the newest is kept
        for name, measure in self.measures.items():
            # The held-out photos choose only where there are no others, and are read at the end in any case.
            last = self.step == cfg.steps
            if measure.photos and (name == "choose" or last or not self.measures["choose"].photos):
                drafts = measure.drafts(model, self.teaching.words, cfg.measure_beams, bf16=self.bf16)
                found[name] = measure.figures(drafts)
                if name == "choose" or not self.measures["choose"].photos:
                    score = float(np.mean([one["CIDEr"] for one in found[name].values()]))
        if score >= self.best:
            self.best = score
            facts = {"recipe": without_model(self.recipe.raw), "step": self.step, "figures": found}
            config = replace(model.config, training=facts)
            model_folder.save(self.run / "captioner", config, model, self.lessons.tokenizer)
        return found

    def finish(self) -> float:
        """Chooses how much the towers' cosine counts among a picture's captions, and writes it; the weight."""
        folder = self.run / "captioner"
        config = model_folder.read_config(CaptionConfig, folder)
        measure = next((one for one in self.measures.values() if one.photos), None)
        if measure is None:
            return config.cosine_weight
        model = load_model(folder, config)
        drafts = measure.drafts(model, self.teaching.words, config.beams, bf16=self.bf16)
        weight, tried = best_weight(measure, drafts)
        facts = {**config.training, "cosine_weights": tried}
        model_folder.write_config(folder, replace(config, cosine_weight=weight, training=facts))
        return weight


def main(argv: list[str] | None = None) -> None:
    recipe, base, stop_after = asked(__doc__, CaptionRecipe, argv)
    quicken()
    fit = Fit(recipe, base)
    fit.go(stop_after)
    if fit.step == fit.recipe.train.steps:
        print(f"the towers' cosine counts {fit.finish():g} times")
    print(f"{fit.run / 'captioner'}: after {fit.step} steps")


if __name__ == "__main__":
    main()
