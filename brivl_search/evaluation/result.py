"""The outcome of an evaluation: the figures, and the ranks and vectors they come from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from brivl_search.errors import UsageError
from brivl_search.evaluation.pairs import DIRECTIONS, DirectionName, Pairs
from brivl_search.metrics import (
    DEFINITION,
    DEFINITIONS,
    Bootstrap,
    Definition,
    Ranks,
    Recall,
    partner_ranks,
    per_query,
    summarize,
)

SEARCHES = ("exact", "through_index")
CORRECTED = "corrected"  # exactly, with the correction for hubs; only where there is one
RE_ORDERED = "re_ordered"  # a third one, where a matcher re-orders what comes through the index


@dataclass(frozen=True)
class EvaluationOptions:
    """How the figures are taken.

    Attributes:
        definition: of R@k; "diagonal" leaves only the first caption of each image.
        bootstrap: gives confidence intervals; None: no intervals.
    """

    definition: Definition = "any"
    bootstrap: Bootstrap | None = None


@dataclass(frozen=True)
class Latency:
    """Time of single queries, one after another, on this machine.

    Attributes:
        p50: median, milliseconds.
        p99: 99th percentile, milliseconds.
        queries: how many were timed.
        what: what is timed and what is not.
    """

    p50: float
    p99: float
    queries: int
    what: str

    def to_dict(self) -> dict[str, Any]:
        """What `--format json` prints."""
        return {**asdict(self), "p50": round(self.p50, 4), "p99": round(self.p99, 4)}


@dataclass(frozen=True, eq=False)
class Searched:
    """One direction, searched one way; `lists` are int64 (q, k), the best candidates, where they are known."""

    ranks: Ranks
    lists: np.ndarray | None = None


@dataclass(frozen=True)
class Evaluation:
    """Both directions; `through_index` is None where there is no index (a dataset).

    Where hubs are corrected, there is "corrected" beside "exact", and what goes through the index is corrected too.

    Attributes:
        source: the dataset's or the index's folder.
        fields: which captions.
        encoder: its name.
        ks: cut-offs of R@k.
        text_to_image: figures by "exact" and "through_index", and "re_ordered" where a matcher was asked.
        image_to_text: the same.
        definition: of R@k, in words.
        notes: what a reader should know of the data.
        options: how the figures were taken.
        both: "mean_recall" (mean of R@k over both directions) and "recall_sum" (their sum) by search, in percent.
        both_intervals: (low, high) of the same.
        latency: of single queries through the index, by direction.
        calibration_error: expected calibration error of the encoder's `match` on these pairs; None: it has none.
        matcher: the one that re-orders: name, fingerprint, top, cosine_weight; None: there is none.
        matcher_time: of re-ordering for single queries, by direction.
        encoder_time: of encoding single queries, by direction; where there is no index.
        pairs: what was compared.
        searched: the ranks, by direction and search.
    """

    source: str
    fields: tuple[str, ...]
    encoder: str
    ks: tuple[int, ...]
    text_to_image: dict[str, Recall | None]
    image_to_text: dict[str, Recall | None]
    definition: str = DEFINITION
    notes: list[str] = field(default_factory=list)
    options: EvaluationOptions = EvaluationOptions()
    both: dict[str, dict[str, float] | None] = field(default_factory=dict)
    both_intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    latency: dict[DirectionName, Latency] = field(default_factory=dict)
    encoder_time: dict[DirectionName, Latency] = field(default_factory=dict)
    calibration_error: float | None = None
    matcher: dict[str, Any] | None = None
    matcher_time: dict[DirectionName, Latency] = field(default_factory=dict)
    pairs: Pairs | None = field(default=None, repr=False, compare=False)
    searched: dict[DirectionName, dict[str, Searched]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, direction: DirectionName) -> dict[str, Recall | None]:
        """Figures of one direction by search."""
        return self.text_to_image if direction == "text_to_image" else self.image_to_text

    def to_dict(self) -> dict[str, Any]:
        """What `--format json` prints."""
        bootstrap = self.options.bootstrap
        return {
            **{key: getattr(self, key) for key in ("source", "fields", "encoder", "definition", "notes")},
            "recall": self.options.definition,
            "calibration_error": None if self.calibration_error is None else round(self.calibration_error, 4),
            **({} if self.matcher is None else {"matcher": self.matcher}),
            "confidence": None
            if bootstrap is None
            else {
                "level": bootstrap.level,
                "method": "percentile bootstrap over images with their captions",
                "resamples": bootstrap.resamples,
                "seed": bootstrap.seed,
            },
            **{name: self._direction(name) for name in DIRECTIONS},
            "both_directions": {
                search: None if values is None else {**_rounded(values), **self._intervals(self.both_intervals[search])}
                for search, values in self.both.items()
            },
        }

    def _direction(self, name: DirectionName) -> dict[str, Any]:
        measured = self.of(name)
        some = next(value for value in measured.values() if value is not None)
        out: dict[str, Any] = {"queries": some.queries, "candidates": some.candidates}
        for search, value in measured.items():
            out[search] = None if value is None else {**_rounded(value.figures()), **self._intervals(value.intervals)}
        for key, times in (("latency_ms", self.latency), ("encoder_ms", self.encoder_time)):
            out[key] = times[name].to_dict() if name in times else None
        if name in self.matcher_time:
            out["matcher_ms"] = self.matcher_time[name].to_dict()
        return out

    def _intervals(self, intervals: Any) -> dict[str, Any]:
        if self.options.bootstrap is None:
            return {}
        return {"intervals": {name: [round(low, 4), round(high, 4)] for name, (low, high) in intervals.items()}}


def evaluation_of(
    pairs: Pairs,
    searched: dict[DirectionName, dict[str, Searched]],
    ks: Sequence[int],
    options: EvaluationOptions,
    **facts: Any,
) -> Evaluation:
    """The figures that ranks give; `facts` are the other attributes of `Evaluation`."""
    empty: dict[str, None] = dict.fromkeys((*SEARCHES, *searched["text_to_image"]))
    figures: dict[DirectionName, dict[str, Recall | None]] = {name: {**empty} for name in DIRECTIONS}
    both: dict[str, dict[str, float] | None] = {**empty}
    both_intervals: dict[str, dict[str, tuple[float, float]]] = {search: {} for search in empty}
    for search in searched["text_to_image"]:
        recalls = []
        for name in DIRECTIONS:
            recall = summarize(searched[name][search].ranks, ks, definition=options.definition)
            figures[name][search] = recall
            recalls += list(recall.recall.values())
        both[search] = {"mean_recall": float(np.mean(recalls)), "recall_sum": float(np.sum(recalls))}
        if options.bootstrap is None:
            continue
        bootstrap = options.bootstrap
        samples = draw(pairs, {name: searched[name][search] for name in DIRECTIONS}, ks, options.definition, bootstrap)
        intervals = {
            part: {name: bootstrap.interval(values) for name, values in some.items()} for part, some in samples.items()
        }
        both_intervals[search] = intervals["both_directions"]
        for name in DIRECTIONS:
            plain = figures[name][search]
            assert plain is not None
            figures[name][search] = replace(plain, intervals=intervals[name])
    return Evaluation(
        ks=tuple(ks),
        text_to_image=figures["text_to_image"],
        image_to_text=figures["image_to_text"],
        definition=DEFINITIONS[options.definition],
        options=options,
        both=both,
        both_intervals=both_intervals,
        pairs=pairs,
        searched=searched,
        **facts,
    )


def ranked(pairs: Pairs, name: DirectionName) -> dict[str, Searched]:
    """A direction searched exactly; and once more with the correction for hubs, where text → image has one."""
    way = pairs.direction(name)
    plain = Searched(partner_ranks(way.queries, way.candidates, way.truth))
    if pairs.lowered is None:
        return {"exact": plain}
    if way.lowered is None:
        return {"exact": plain, CORRECTED: plain}
    corrected = partner_ranks(way.queries, way.candidates, way.truth, added=way.lowered)
    return {"exact": plain, CORRECTED: Searched(corrected)}


def draw(
    pairs: Pairs,
    searched: Mapping[DirectionName, Searched],
    ks: Sequence[int],
    definition: Definition,
    bootstrap: Bootstrap,
) -> dict[str, dict[str, np.ndarray]]:
    """Figures over other draws of the images, the same draws for both directions and whatever was searched how.

    Returns:
        float64 (resamples,) by direction (and "both_directions") and figure.
    """
    out: dict[str, dict[str, np.ndarray]] = {}
    for name in DIRECTIONS:
        cluster = pairs.direction(name).cluster
        parts = per_query(searched[name].ranks, ks, definition)
        out[name] = parts.samples(bootstrap, cluster, int(cluster.max()) + 1)
    recalls = [out[name][f"R@{k}"] for name in DIRECTIONS for k in ks]
    out["both_directions"] = {"mean_recall": np.mean(recalls, axis=0), "recall_sum": np.sum(recalls, axis=0)}
    return out


def timed(call: Callable[[int], Any], count: int, what: str, *, most: int = 500, seconds: float = 1.5) -> Latency:
    """Times `call(i)` for i below `count`, one by one, until `most` calls or `seconds` are over; at least 5.

    The first three are run once before, untimed: they find cold caches.
    """
    for i in range(min(3, count)):
        call(i)
    took: list[float] = []
    began = time.perf_counter()
    for i in range(min(count, most)):
        start = time.perf_counter()
        call(i)
        end = time.perf_counter()
        took.append(1000 * (end - start))
        if end - began > seconds and len(took) >= 5:
            break
    p50, p99 = np.percentile(took, [50, 99])
    return Latency(float(p50), float(p99), len(took), what)


def parse_ks(text: str) -> tuple[int, ...]:
    """ "1,5,10" → (1, 5, 10).

    Raises:
        UsageError: not a list of whole numbers from 1 on.
    """
    try:
        ks = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        ks = ()
    if not ks or min(ks) < 1:
        raise UsageError(f"`recall_at` {text}: give whole numbers from 1 on, such as 1,5,10")
    return tuple(sorted(ks))


def _rounded(values: dict[str, Any]) -> dict[str, float | None]:
    """Percents to 3 places, MRR and mAP, which lie between 0 and 1, to 5."""
    places = {"MRR": 5, "mAP": 5}
    return {name: value if value is None else round(value, places.get(name, 3)) for name, value in values.items()}
