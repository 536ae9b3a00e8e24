"""What an evaluation's page shows: scores of true and false pairs, calibration, the worst and the best queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brivl_search.encoders.calibration import Calibration
from brivl_search.evaluation.calibrating import expected_calibration_error
from brivl_search.evaluation.pairs import Direction, DirectionName, Pairs
from brivl_search.evaluation.result import Evaluation
from brivl_search.metrics import pair_scores, top_lists
from brivl_search.metrics.cosine import bounded

DEEPEST = 100  # of the recall curves
BINS = 15  # of the calibration plot, as in calibration.py
MOST_PAIRS = 100_000  # true pairs whose scores are shown
MOST_CANDIDATES = 2_000  # queries among which the best are looked for
SHOWN = 8  # worst and best queries of each direction
TOP = 3  # found ones shown beside each


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosines of true pairs and of as many pairs drawn at random from different images, float32 (p,) each."""

    true: np.ndarray
    false: np.ndarray


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often pairs belong together at each probability, half of all pairs being true.

    Attributes:
        probability: float (b,), mean of each bin that holds pairs.
        share: float (b,), share of its pairs that belong together.
        counts: int64 (b,), its pairs.
        ece: the expected calibration error over BINS bins.
    """

    probability: np.ndarray
    share: np.ndarray
    counts: np.ndarray
    ece: float


@dataclass(frozen=True)
class Found:
    """One candidate beside a query."""

    number: int
    score: float
    true: bool
    rank: int


@dataclass(frozen=True)
class Example:
    """One query, its best-placed partner, and what was found before or after it."""

    query: int
    partner: Found
    found: tuple[Found, ...]


def scores_of(pairs: Pairs, seed: int = 0) -> Scores | None:
    """Of all texts with their images, at most MOST_PAIRS of them; None if there is no false pair."""
    if len(pairs.images) < 2:
        return None
    rng = np.random.default_rng(seed)
    texts = np.arange(len(pairs.texts))
    if len(texts) > MOST_PAIRS:
        texts = np.sort(rng.choice(texts, MOST_PAIRS, replace=False))
    owners = np.array([pairs.partners[text][0] for text in texts.tolist()])
    others = (owners + rng.integers(1, len(pairs.images), len(texts))) % len(pairs.images)  # never the owner
    false = [other not in pairs.partners[text] for text, other in zip(texts.tolist(), others.tolist(), strict=True)]
    if not any(false):
        return None
    texts, owners, others = texts[false], owners[false], others[false]
    return Scores(
        bounded(pair_scores(pairs.text_vectors, pairs.image_vectors, texts, owners)),
        bounded(pair_scores(pairs.text_vectors, pairs.image_vectors, texts, others)),
    )


def reliability(scores: Scores, calibration: Calibration) -> Reliability:
    """The reliability diagram of a calibration on these pairs (Guo et al., ICML 2017, section 2)."""
    cosines = np.concatenate([scores.true, scores.false]).astype(np.float64)
    belongs = np.arange(len(cosines)) < len(scores.true)
    probability = np.array([calibration.probability(float(cosine)) for cosine in cosines])
    bin_of = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bin_of, minlength=BINS)
    some = counts > 0
    return Reliability(
        np.bincount(bin_of, probability, BINS)[some] / counts[some],
        np.bincount(bin_of, belongs.astype(np.float64), BINS)[some] / counts[some],
        counts[some],
        expected_calibration_error(probability, belongs, BINS),
    )


def examples(evaluation: Evaluation, name: DirectionName, search: str) -> tuple[list[Example], list[Example]]:
    """The worst queries, whose best partner stands furthest down, and the best: found first, by the widest margin.

    The margin is the cosine of the best partner less that of the best other candidate. Among very many queries that
    were found first, MOST_CANDIDATES spread over them are looked at.
    """
    assert evaluation.pairs is not None
    way = evaluation.pairs.direction(name)
    first = evaluation.searched[name][search].ranks.first
    worst = np.argsort(-first, kind="stable")[:SHOWN]
    worst = worst[first[worst] > 1]
    right = np.flatnonzero(first == 1)
    if len(right) > MOST_CANDIDATES:
        right = right[np.linspace(0, len(right) - 1, MOST_CANDIDATES).astype(np.int64)]
    lists = _top(way, right, max((len(way.truth[i]) for i in right.tolist()), default=0) + 1)
    margins = []
    for query, (numbers, scores) in zip(right.tolist(), lists, strict=True):
        others = scores[~np.isin(numbers, way.truth[query])]
        margins.append(float(scores[0] - others[0]) if len(others) else 0.0)
    best = right[np.argsort(-np.asarray(margins), kind="stable")[:SHOWN]]
    return _examples(evaluation, way, search, worst), _examples(evaluation, way, search, best)


def _examples(evaluation: Evaluation, way: Direction, search: str, chosen: np.ndarray) -> list[Example]:
    ranks = evaluation.searched[way.name][search].ranks
    out = []
    for query, (numbers, scores) in zip(chosen.tolist(), _top(way, chosen, TOP), strict=True):
        mine = ranks.ranks[ranks.starts[query] : ranks.starts[query + 1]]
        at = int(np.argmin(mine))
        partner = way.truth[query][at]
        score = bounded(pair_scores(way.queries, way.candidates, np.array([query]), np.array([partner])))[0]
        found = tuple(
            Found(number, score, number in way.truth[query], place)
            for place, (number, score) in enumerate(zip(numbers.tolist(), scores.tolist(), strict=True), start=1)
        )
        out.append(Example(query, Found(partner, float(score), True, int(mine[at])), found))
    return out


def _top(way: Direction, chosen: np.ndarray, k: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    numbers, scores = top_lists(way.queries[chosen], way.candidates, k, added=way.lowered)
    if way.lowered is not None:  # in the order of corrected scores, with their cosines
        scores = scores - way.lowered[numbers]
    return list(zip(numbers, bounded(scores), strict=True))
