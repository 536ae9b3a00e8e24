"""The tables of an evaluation and of a comparison of encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from brivl_search.display import printable
from brivl_search.evaluation import LIST_DEPTH, Comparison, DirectionName, Evaluation
from brivl_search.evaluation.result import CORRECTED, RE_ORDERED
from brivl_search.metrics import Recall
from brivl_search.output import show, table

_ARROWS: dict[DirectionName, str] = {"text_to_image": "text → image", "image_to_text": "image → text"}
_FIGURES = {"median_rank": "median rank", "mean_rank": "mean rank", "mean_recall": "MR", "recall_sum": "R@sum"}


def print_evaluation(evaluation: Evaluation, comparisons: Sequence[tuple[Evaluation, Comparison]] = ()) -> None:
    """Both directions: exact, through the index and the time of a query side by side; then other encoders beside."""
    fields = ", ".join(evaluation.fields)
    out = table(f"{printable(evaluation.source)}  captions: {fields}  encoder: {evaluation.encoder}")
    indexed = evaluation.text_to_image["through_index"] is not None
    corrected = CORRECTED in evaluation.searched["text_to_image"]
    titles = {
        "exact": "exact model",
        CORRECTED: "hubs corrected",
        "through_index": "through the index",
        RE_ORDERED: "re-ordered",
    }
    searches = tuple(search for search in titles if evaluation.text_to_image.get(search) is not None)
    out.add_column("direction", no_wrap=True)
    out.add_column("figure", no_wrap=True)
    for search in searches:
        out.add_column(titles[search], justify="right")
    out.add_column("ms a query" if indexed else "encoder, ms a query", justify="right")
    if evaluation.matcher is not None:
        out.add_column("ms of the matcher", justify="right")
    counts: list[str] = []
    for name, arrow in _ARROWS.items():
        times = evaluation.latency.get(name) or evaluation.encoder_time.get(name)
        columns = [times] if evaluation.matcher is None else [times, evaluation.matcher_time.get(name)]
        beside = [[f"p50 {one.p50:.2f}", f"p99 {one.p99:.2f}"] if one else [] for one in columns]
        recalls = [recall for recall in (evaluation.of(name)[search] for search in searches) if recall is not None]
        for row, figure in enumerate(recalls[0].figures()):
            cells = [_figure(figure, recall, evaluation) for recall in recalls]
            out.add_row(
                "" if row else arrow,
                _FIGURES.get(figure, figure),
                *cells,
                *("".join(one[row : row + 1]) for one in beside),
            )
        counts.append(f"{arrow}: {recalls[0].queries:,} queries, {recalls[0].candidates:,} candidates")
        out.add_row(end_section=True)
    for row, figure in enumerate(("mean_recall", "recall_sum")):
        cells = []
        for search in searches:
            values = evaluation.both[search]
            assert values is not None
            cells.append(_value(values[figure], evaluation.both_intervals[search].get(figure), 1))
        out.add_row("" if row else "both", _FIGURES[figure], *cells, "")
    show(out)
    for other, comparison in comparisons:
        show("")
        show(_comparison_table(other, comparison))
    for count in counts:
        show(Text(count))
    show(Text(evaluation.definition))
    if indexed:
        depth = max(*evaluation.ks, LIST_DEPTH)
        show(Text(f"through the index: lists {depth} deep; a partner further down adds 0 to MRR and mAP"))
    ks = ", ".join(f"R@{k}" for k in evaluation.ks)
    show(Text(f"MR: mean of {ks}; R@sum: their sum over both directions"))
    if corrected:
        where = ", and what goes through the index" if indexed else ""
        show(Text(f"hubs corrected: text → image with the hub correction{where}; image → text is not corrected"))
    if evaluation.calibration_error is not None:
        error = evaluation.calibration_error
        show(Text(f"match: expected calibration error {error:.3f}, on true and random pairs of these"))
    if evaluation.options.bootstrap is not None:
        level, draws = evaluation.options.bootstrap.level, evaluation.options.bootstrap.resamples
        show(Text(f"±, [low, high]: {level:g} % intervals, {draws:,} draws of the images with their captions"))
    if evaluation.matcher is not None:
        matcher = evaluation.matcher
        show(Text(f"re-ordered: the first {matcher['top']} hits, by {printable(str(matcher['name']))}"))
    times_of = (
        *evaluation.latency.values(),
        *evaluation.encoder_time.values(),
        *evaluation.matcher_time.values(),
    )
    for what in dict.fromkeys(times.what for times in times_of):
        show(Text(f"ms: {what}"))
    for note in evaluation.notes:
        show(Text(note))


def _comparison_table(other: Evaluation, comparison: Comparison) -> Table:
    names = f"{comparison.encoder} less {comparison.baseline}"
    out = table(f"{names}, exact model, {comparison.level:g} % intervals (paired)")
    out.add_column("direction")
    out.add_column("figure")
    for name in ("value", "difference", "interval"):
        out.add_column(name, justify="right")
    out.add_column("excludes 0")
    arrows: dict[str, str] = {"both_directions": "both"} | {str(name): arrow for name, arrow in _ARROWS.items()}
    for part, differences in comparison.differences.items():
        values: Mapping[str, float | None]
        if part == "both_directions":
            values = other.both["exact"] or {}
        else:
            recall = other.text_to_image["exact"] if part == "text_to_image" else other.image_to_text["exact"]
            assert recall is not None
            values = recall.figures()
        for row, (figure, found) in enumerate(differences.items()):
            places = _places(figure)
            out.add_row(
                "" if row else arrows[part],
                _FIGURES.get(figure, figure),
                f"{values[figure]:.{places}f}",
                f"{found.difference:+.{places}f}",
                f"[{found.low:+.{places}f}, {found.high:+.{places}f}]",
                "yes" if found.excludes_zero else "no",
            )
    return out


def _figure(name: str, recall: Recall, evaluation: Evaluation) -> str:
    value = recall.figures()[name]
    if value is None:
        return "–"  # a partner is further down than the lists reach
    depth = max(*evaluation.ks, LIST_DEPTH)
    if name == "median_rank" and depth < value < recall.candidates:
        return f"> {depth}" if recall.mean_rank is None else f"{value:g}"
    return _value(value, recall.intervals.get(name), _places(name), whole=name == "median_rank")


def _value(value: float, interval: tuple[float, float] | None, places: int, *, whole: bool = False) -> str:
    shown = f"{value:g}" if whole else f"{value:.{places}f}"
    if interval is None:
        return shown
    low, high = interval
    if whole:
        return f"{shown} [{low:g}, {high:g}]"
    return f"{shown} ±{(high - low) / 2:.{places}f}"


def _places(figure: str) -> int:
    return 3 if figure in ("MRR", "mAP") else 1
