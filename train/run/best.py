"""The checkpoint that a run keeps: the start, until a later step scores better on the validation photos."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brivl_search.encoders.brivl.checkpoint import save_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from train.model.towers import TwoTowers
from train.run.validate import Validation

Recall = dict[str, dict[str, float]]


@dataclass
class Best:
    """Measures towers and keeps the best.

    Attributes:
        folder: where the checkpoint lies.
        config, tokenizer, recipe: what is kept with the towers.
        validation: what measures them.
        score: of the kept checkpoint; -1: none is kept yet.
        step: when it was kept.
        start: recall before the first step; empty: it was not measured.
    """

    folder: Path
    config: ModelConfig
    tokenizer: TextTokenizer
    recipe: dict[str, Any]
    validation: Validation
    score: float = -1.0
    step: int = 0
    start: Recall = field(default_factory=dict)

    def measure(self, towers: TwoTowers, step: int, *, final: bool) -> Recall:
        """Recall at a step; the towers are kept if they are the best so far. `final`: of every caption field."""
        recall = self.validation.measure(towers, final=final or not step)
        score = self.validation.score(recall)
        if not step:
            self.start = recall
        # Of equal scores the later one is kept, but training that gains nothing does not replace the start. Without
        # validation photos nothing can be compared: the newest is kept.
        if score > self.score or (score == self.score and self.step) or not recall:
            self.score, self.step = score, step
            facts = {"recipe": self.recipe, "step": step, "val": recall}
            kept = replace(self.config, training=facts)
            save_checkpoint(self.folder, kept, towers.image, towers.text, self.tokenizer)
        return recall

    def state(self) -> dict[str, Any]:
        """For last.pt, beside `score`."""
        return {"best_step": self.step, "start": self.start}

    def go_on(self, score: float, state: dict[str, Any]) -> None:
        """Takes back what `state` gave; a state of an older version has none, and its checkpoint is no start."""
        self.score, self.step, self.start = score, state.get("best_step", 1), state.get("start", {})

    def report(self, recall: Recall | None, step: int) -> list[str]:
        """What the run has come to, in lines: before and after, and whether it was worth it."""
        name = self.validation.name
        if not recall or not self.validation.photos:
            return ["no validation photos (hold_out, hold_out_last): the newest towers are kept, good or bad"]
        lines = []
        if self.start:
            for field_name in (n for n in recall if n in self.start):
                before, after = (self.validation.short({name: r[field_name]}) for r in (self.start, recall))
                lines.append(f"{field_name}: {before} at the start; {after} at step {step}")
        if self.start and not self.step:
            lines.append(
                f"no step scored better than the start ({self.score:.1f}; {self.validation.score(recall):.1f} at step "
                f"{step}): {self.folder} holds the start. A lower train.lr, fewer steps or more pairs may help"
            )
        else:
            lines.append(f"best validation {name} {self.score:.1f}, of step {self.step}: {self.folder}")
        return lines
