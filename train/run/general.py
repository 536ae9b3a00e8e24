"""What a model knew before, and what of it training leaves. Nothing is chosen by these figures.

They are recall on the pairs of `[[general]]`. Where a recipe has none, names of everyday things stand in: how often a
thing's Chinese name is nearest to its own English one and the other way round, which tells of the text tower, and how
many of the held-out photos are still nearest to the same name as at the start, which tells of both.
"""

from __future__ import annotations

import numpy as np

from train.model.towers import TwoTowers
from train.run.things import THINGS
from train.run.validate import KS, Recall, Validation

Figures = dict[str, float]


class General:
    """Measures what is left of general knowledge."""

    def __init__(self, pairs: Validation, held_out: Validation, *, asked: bool = True) -> None:
        """Takes the `[[general]]` pairs, of which there may be none, and the held-out ones; `asked`: else nothing is
        measured."""
        self.pairs, self.held_out, self.asked = pairs, held_out, asked
        self._first: np.ndarray | None = None  # the name that each held-out photo was nearest to at the start

    def begin(self, start: TwoTowers) -> None:
        """Remembers what the start says of the held-out photos; to be called before anything is learnt."""
        if self.asked and not self.pairs.photos and self.held_out.photos:
            self._first = self._nearest(start)

    def measure(self, towers: TwoTowers) -> Recall:
        """Recall of every caption field of the general pairs; without any, that of names."""
        if not self.asked:
            return {}
        if self.pairs.photos:
            return self.pairs.measure(towers, final=True)
        chinese, english = (self.held_out.texts(towers, list(names)) for names in zip(*THINGS, strict=True))
        scores = chinese @ english.T
        own = np.arange(len(scores))
        figures = {"zh→en@1": _share(scores.argmax(1) == own), "en→zh@1": _share(scores.argmax(0) == own)}
        if self._first is not None:
            figures["photos' names kept"] = _share(self._nearest(towers) == self._first)
        return {f"{len(THINGS)} things": figures}

    def _nearest(self, towers: TwoTowers) -> np.ndarray:
        names = self.held_out.texts(towers, [english for _, english in THINGS])
        nearest: np.ndarray = (self.held_out.images(towers) @ names.T).argmax(1)
        return nearest

    def short(self, found: Recall) -> str:
        """In a line."""
        return "; ".join(f"{name}: {shown(figures)}" for name, figures in found.items())


def shown(figures: Figures) -> str:
    """R@1/5/10 of both directions, or whatever else was measured."""
    if f"t2i@{KS[0]}" not in figures:
        return ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    return " | ".join("/".join(f"{figures[f'{way}@{k}']:.1f}" for k in KS) for way in ("t2i", "i2t"))


def _share(right: np.ndarray) -> float:
    """In percent."""
    return float(right.mean()) * 100
