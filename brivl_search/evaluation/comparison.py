"""Encoders side by side on the same data: differences of figures, and whether chance in the queries explains them.

The bootstrap is paired: every draw of images is the same for both encoders, so what makes a query hard for both does
not blur their difference. "Excludes 0" is a statement about one difference at the level asked for; among many figures
and encoders a few exclude 0 by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from brivl_search.evaluation.pairs import DIRECTIONS
from brivl_search.evaluation.result import Evaluation, draw
from brivl_search.metrics import Bootstrap


@dataclass(frozen=True)
class Difference:
    """Of one figure: its value less the baseline's, the interval of that, and whether the interval leaves out 0."""

    difference: float
    low: float
    high: float
    excludes_zero: bool


@dataclass(frozen=True)
class Comparison:
    """One encoder against the baseline.

    Attributes:
        encoder: the one compared.
        baseline: the one it is compared with.
        level: of the intervals, in percent.
        differences: by "text_to_image", "image_to_text" or "both_directions", then by figure.
    """

    encoder: str
    baseline: str
    level: float
    differences: dict[str, dict[str, Difference]]

    def to_dict(self) -> dict[str, Any]:
        """What `--format json` prints."""
        return asdict(self)


def compare(baseline: Evaluation, others: Sequence[Evaluation], bootstrap: Bootstrap | None = None) -> list[Comparison]:
    """Each of `others` less the baseline, by exact search.

    Args:
        baseline: of the same data, with the same options as the others.
        others: the encoders to compare.
        bootstrap: how to draw [default: the baseline's, else Bootstrap()].

    Raises:
        ValueError: they are not of the same texts, images, cut-offs and definition of recall.
    """
    bootstrap = bootstrap or baseline.options.bootstrap or Bootstrap()
    before, points = _draws(baseline, bootstrap), _points(baseline)
    out = []
    for other in others:
        if _data(other) != _data(baseline):
            raise ValueError(f"{other.encoder} was evaluated on other data than {baseline.encoder}")
        after, values = _draws(other, bootstrap), _points(other)
        differences: dict[str, dict[str, Difference]] = {}
        for part, figures in values.items():
            differences[part] = {}
            for name, value in figures.items():
                low, high = bootstrap.interval(after[part][name] - before[part][name])
                excludes = not low <= 0 <= high
                differences[part][name] = Difference(value - points[part][name], low, high, excludes)
        out.append(Comparison(other.encoder, baseline.encoder, bootstrap.level, differences))
    return out


def _data(evaluation: Evaluation) -> tuple[Any, ...]:
    pairs = evaluation.pairs
    assert pairs is not None
    return list(pairs.texts), list(pairs.images), list(pairs.partners), evaluation.ks, evaluation.options.definition


def _draws(evaluation: Evaluation, bootstrap: Bootstrap) -> dict[str, Any]:
    assert evaluation.pairs is not None
    exact = {name: evaluation.searched[name]["exact"] for name in DIRECTIONS}
    return draw(evaluation.pairs, exact, evaluation.ks, evaluation.options.definition, bootstrap)


def _points(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for name in DIRECTIONS:
        exact = evaluation.of(name)["exact"]
        assert exact is not None
        out[name] = {figure: value for figure, value in exact.figures().items() if value is not None}
    both = evaluation.both["exact"]
    assert both is not None
    return {**out, "both_directions": both}
