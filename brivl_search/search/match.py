"""When the probability that a text and a picture belong together is known, and what asks for it where it is not."""

from __future__ import annotations

from brivl_search.encoders.base import Encoder
from brivl_search.errors import UsageError
from brivl_search.index import Modality
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query
from brivl_search.search.words import is_empty_to, named, unknown_of


def is_known(encoder: Encoder, query: Query, modality: Modality) -> bool:
    """Whether hits of this query have a match: one text against images, or one picture against captions.

    There is none without a calibration, nor for a text of which the encoder knows no word.
    """
    if encoder.calibration is None or query.single in (None, modality):
        return False
    return not any(is_empty_to(encoder, text) for text in query.texts)


def check(encoder: Encoder, query: Query, modality: Modality) -> None:
    """Raises UsageError if no match is known for hits of this query."""
    if is_known(encoder, query, modality):
        return
    calibrated = encoder.calibration is not None
    if calibrated and query.single not in (None, modality):
        words = unknown_of(encoder, query)
        raise UsageError(
            f"`min_match` needs a match, and the encoder knows no word of the text ({named(words)}): use words that it "
            "knows, or `min_score`",
            code="no_match",
            details={"calibrated": True, "unknown_words": words},
        )
    raise UsageError(
        "`min_match` needs a match, which is known for one text against images or one picture against captions"
        + ("" if calibrated else ", and this encoder has no calibration")
        + ": use `min_score`",
        code="no_match",
        details={"calibrated": calibrated},
    )


def good_enough(hit: Hit, options: SearchOptions) -> bool:
    """Whether a hit scores and matches as high as the options ask for."""
    return (options.min_score is None or hit.score >= options.min_score) and (
        options.min_match is None or (hit.match or 0.0) >= options.min_match
    )
