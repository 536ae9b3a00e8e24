"""The page itself: charts and examples go into `page.html.jinja`, pictures as small data: URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from brivl_search.corpus.thumbnails import thumbnail_jpeg
from brivl_search.display import harmless, printable
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import ImageError
from brivl_search.evaluation import Comparison, Evaluation
from brivl_search.evaluation.page import charts, content
from brivl_search.evaluation.page.charts import Axis, Series
from brivl_search.evaluation.pairs import DIRECTIONS, Direction, DirectionName
from brivl_search.evaluation.result import CORRECTED
from brivl_search.metrics import recall_curve

ARROWS: dict[DirectionName, str] = {"text_to_image": "Text → image", "image_to_text": "Image → text"}
NAMES = {
    "exact": "exact model",
    "corrected": "hubs corrected",
    "through_index": "through the index",
    "re_ordered": "re-ordered",
}
SIDE = 200  # pixels of a thumbnail's longer side, 4-8 kB
HISTOGRAM_BINS = 48
TICKS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Chart:
    """A drawn chart with its legend and what it means, in a sentence."""

    title: str
    svg: str
    legend: Sequence[Series]
    words: str


def write_page(
    path: Path,
    evaluation: Evaluation,
    calibration: Calibration | None,
    compared: Sequence[tuple[Evaluation, Comparison]] = (),
) -> None:
    """Writes the page; an older one is replaced.

    Args:
        path: the HTML file.
        evaluation: what is shown; the first of several encoders.
        calibration: of its encoder, None where it has none.
        compared: other encoders on the same data.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(render(evaluation, calibration, compared), encoding="utf-8")


def render(
    evaluation: Evaluation,
    calibration: Calibration | None,
    compared: Sequence[tuple[Evaluation, Comparison]] = (),
) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["harmless"] = harmless
    template = environment.from_string(
        files("brivl_search.evaluation.page").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    assert evaluation.pairs is not None
    scores = content.scores_of(evaluation.pairs)
    drawn = [_recall_chart(name, [evaluation, *(other for other, _ in compared)]) for name in DIRECTIONS]
    if scores is not None:
        drawn.append(_histogram(scores))
    if scores is not None and calibration is not None:
        drawn.append(_calibration_chart(content.reliability(scores, calibration)))
    search = _shown(evaluation)
    pictures = _Pictures()
    return template.render(
        evaluation=evaluation,
        names=NAMES,
        source=printable(evaluation.source),
        searches=list(evaluation.searched["text_to_image"]),
        directions=[(name, ARROWS[name], evaluation.of(name)) for name in DIRECTIONS],
        charts=drawn,
        calibrated=calibration is not None,
        compared=compared,
        examples=[
            (ARROWS[name], name, kind, _cards(evaluation, name, some, pictures))
            for name in DIRECTIONS
            for kind, some in zip(("worst", "best"), content.examples(evaluation, name, search), strict=True)
        ],
        searched={"through_index": "the index"}.get(search, "exact search"),
    )


def _shown(evaluation: Evaluation) -> str:
    """Of which search examples are shown: as one would search."""
    found = evaluation.searched["text_to_image"]
    return next(search for search in ("through_index", CORRECTED, "exact") if search in found)


def _recall_chart(name: DirectionName, evaluations: Sequence[Evaluation]) -> Chart:
    series = []
    for at, evaluation in enumerate(evaluations):
        for search, searched in evaluation.searched[name].items():
            if search == CORRECTED and name == "image_to_text":
                continue  # hubs are corrected in the other direction alone
            curve = recall_curve(searched.ranks, evaluation.options.definition, content.DEEPEST)
            ks = np.arange(1, len(curve) + 1)
            label = NAMES[search]
            if len(evaluations) > 1:
                label = evaluation.encoder + (", hubs corrected" if search == CORRECTED else "")
            marks = {*TICKS, len(curve)}
            hints = [
                f"{label}: R@{k} = {value:.1f} %" if k in marks else ""
                for k, value in zip(ks.tolist(), curve.tolist(), strict=True)
            ]
            colour = (at + list(NAMES).index(search)) % charts.COLOURS
            series.append(Series(label, ks, curve, colour, dashed=search != "exact", hints=hints))
    deepest = max(2, max(int(one.x[-1]) for one in series))
    ticks = [k for k in TICKS if k <= deepest]
    x = Axis("k, the number of results", 1, deepest, ticks, "d", log=True)
    y = Axis("R@k, %", 0, 100, [0, 20, 40, 60, 80, 100], "d")
    title = f"Recall, {ARROWS[name].lower()}"
    return Chart(
        title, charts.lines(title, x, y, series), series, "How often a true partner is among the first k results."
    )


def _histogram(scores: content.Scores) -> Chart:
    both = np.concatenate([scores.true, scores.false])
    low, high = float(both.min()), float(both.max())
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    series = [
        Series(label, middle, np.histogram(some, edges)[0] / len(some) * 100, colour)
        for label, some, colour in (("false pairs", scores.false, 1), ("true pairs", scores.true, 0))
    ]
    most = max(float(one.y.max()) for one in series) * 1.05
    x = Axis("cosine", low, high, charts.even_ticks(low, high))
    y = Axis("% of the pairs", 0, most, charts.even_ticks(0, most))
    words = (
        f"{len(scores.true):,} captions with their own image (mean {scores.true.mean():.3f}) and as many with an image "
        f"drawn at random (mean {scores.false.mean():.3f}). The less the two overlap, the better a threshold works."
    )
    title = "Scores of true and false pairs"
    return Chart(title, charts.histogram(title, x, y, edges, series), series, words)


def _calibration_chart(found: content.Reliability) -> Chart:
    hints = [
        f"said {p:.0%}, true {s:.0%}, {n:,} pairs"
        for p, s, n in zip(found.probability, found.share, found.counts, strict=True)
    ]
    series = [Series("pairs by their match", found.probability, found.share, 0, hints=hints)]
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    x = Axis("match, the probability that is said", 0, 1, ticks)
    y = Axis("share that belongs together", 0, 1, ticks)
    title = "Calibration"
    words = (
        f"ECE {found.ece:.3f} over {content.BINS} bins: how far match is off, on average. On the broken line it would "
        "be right. Half of the pairs are true."
    )
    return Chart(title, charts.lines(title, x, y, series, points=True, diagonal=True), series, words)


@dataclass(frozen=True)
class Tile:
    """One thing on a card: a picture (a data: URI, or why there is none) or a text, with what is said of it."""

    label: str
    true: bool
    text: str = ""
    picture: str = ""
    trouble: str = ""
    name: str = ""


class _Pictures:
    """Thumbnails by path, each made once."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, str]] = {}

    def tile(self, label: str, path: str, true: bool) -> Tile:
        if path not in self.known:
            try:
                data = base64.b64encode(thumbnail_jpeg(path, SIDE, quality=75)).decode("ascii")
                self.known[path] = f"data:image/jpeg;base64,{data}", ""
            except ImageError as error:
                self.known[path] = "", error.reason
        picture, trouble = self.known[path]
        return Tile(label, true, picture=picture, trouble=trouble, name=printable(path))


def _cards(
    evaluation: Evaluation, name: DirectionName, some: Sequence[content.Example], pictures: _Pictures
) -> list[tuple[Tile, list[Tile]]]:
    assert evaluation.pairs is not None
    way: Direction = evaluation.pairs.direction(name)

    def tile(label: str, text: str, true: bool, image: bool) -> Tile:
        return pictures.tile(label, text, true) if image else Tile(label, true, text=text)

    out = []
    for example in some:
        query = tile("", evaluation.pairs.query_label(way, example.query), True, name == "image_to_text")
        own = example.partner
        deep = evaluation.searched[name][_shown(evaluation)]
        depth = deep.ranks.depth
        rank = f"rank {own.rank:,}" if depth is None or own.rank <= depth else f"not among {depth:,}"
        shown = [] if any(one.number == own.number for one in example.found) else [(f"its own: {rank}", own)]
        shown += [(f"{one.rank}." + (" its own" if one.true else ""), one) for one in example.found]
        tiles = [
            tile(
                f"{label} · {one.score:.3f}",
                evaluation.pairs.candidate_label(way, one.number),
                one.true,
                name == "text_to_image",
            )
            for label, one in shown
        ]
        out.append((query, tiles))
    return out
