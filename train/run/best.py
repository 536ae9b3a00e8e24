"""The checkpoint that a run keeps: the start, until a later step scores better on the validation photos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.model.kinds.base import Kind
from train.model.towers import TwoTowers
from train.run.validate import Recall, Validation


@dataclass
class Best:
    """Measures towers and keeps the best.

    Attributes:
        folder: where the checkpoint lies.
        kind: what is trained.
        recipe: what is kept with the towers.
        validation: what measures them.
        score: of the kept checkpoint; -1: none is kept yet.
        step: when it was kept.
        share: of what was learnt that is in it (`average`).
        start: recall before the first step; empty: it was not measured.
    """

    folder: Path
    kind: Kind
    recipe: dict[str, Any]
    validation: Validation
    score: float = -1.0
    step: int = 0
    share: float = 1.0
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
            self.keep(towers, step, recall)
        return recall

    def keep(self, towers: TwoTowers, step: int, recall: Recall, share: float = 1.0) -> None:
        """Writes the checkpoint."""
        self.score, self.step, self.share = self.validation.score(recall), step, share
        facts = {"recipe": self.recipe, "step": step, "val": recall}
        facts |= {"start": self.kind.name, "share": share} if share < 1 else {}
        self.kind.save(self.folder, towers, facts)

    def state(self) -> dict[str, Any]:
        """For last.pt, beside `score`."""
        return {"best_step": self.step, "best_share": self.share, "start": self.start}

    def go_on(self, score: float, state: dict[str, Any]) -> None:
        """Takes back what `state` gave; a state of an older version has none, and its checkpoint is no start."""
        self.score, self.step, self.start = score, state.get("best_step", 1), state.get("start", {})
        self.share = state.get("best_share", 1.0)

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
            share = f", {self.share:g} of what was learnt" if self.share < 1 else ""
            lines.append(f"best validation {name} {self.score:.1f}, of step {self.step}{share}: {self.folder}")
        return lines
