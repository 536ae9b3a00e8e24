"""When the probability that a text and a picture belong together is known, and what asks for it where it is not."""

from __future__ import annotations

from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import UsageError
from brivl_search.index import Modality
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query


def is_known(calibration: Calibration | None, query: Query, modality: Modality) -> bool:
    """Whether hits of this query have a match: one text against images, or one picture against captions."""
    return calibration is not None and query.single is not None and query.single != modality


def check(calibration: Calibration | None, query: Query, modality: Modality) -> None:
    """Raises UsageError if no match is known for hits of this query."""
    if not is_known(calibration, query, modality):
        raise UsageError(
            "`min_match` needs a match, which is known for one text against images or one picture against captions"
            + (", and this encoder has no calibration" if calibration is None else "")
            + ": use `min_score`",
            code="no_match",
            details={"calibrated": calibration is not None},
        )


def good_enough(hit: Hit, options: SearchOptions) -> bool:
    """Whether a hit scores and matches as high as the options ask for."""
    return (options.min_score is None or hit.score >= options.min_score) and (
        options.min_match is None or (hit.match or 0.0) >= options.min_match
    )
