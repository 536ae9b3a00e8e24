"""The chance that a hit is right: when it is known, how it is computed, and what asks for it where it is not.

Where the encoder brings a `Confidence`, it is the chance of this hit, among the hits of this query in this collection.
Else, with a calibration, it is that of the pair where half of all pairs are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from brivl_search.embedding.query_pictures import Vector
from brivl_search.encoders.base import Encoder, confidence_of
from brivl_search.encoders.confidence import Collection
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.search.hits import Hit
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query
from brivl_search.search.rows import RowId, ScoredRow
from brivl_search.search.sample import Sample
from brivl_search.search.words import is_empty_to, named, unknown_of
from brivl_search.steps import step


def is_known(encoder: Encoder, query: Query, modality: Modality) -> bool:
    """Whether hits of this query have a match: one text against images, or one picture against captions.

    There is none without a calibration, nor for a text of which the encoder knows no word.
    """
    if (encoder.calibration is None and confidence_of(encoder) is None) or query.single in (None, modality):
        return False
    return not any(is_empty_to(encoder, text) for text in query.texts)


def check(encoder: Encoder, query: Query, modality: Modality, wanted: str = "`min_match`") -> None:
    """Raises UsageError if no match is known for hits of this query; `wanted` needs it."""
    if is_known(encoder, query, modality):
        return
    calibrated = encoder.calibration is not None or confidence_of(encoder) is not None
    instead = ", or `min_score`" if wanted == "`min_match`" else ""
    if calibrated and query.single not in (None, modality):
        words = unknown_of(encoder, query)
        raise UsageError(
            f"{wanted} needs a match, and the encoder knows no word of the text ({named(words)}): use words that it "
            f"knows{instead}",
            code="no_match",
            details={"calibrated": True, "unknown_words": words},
        )
    raise UsageError(
        f"{wanted} needs a match, which is known for one text against images or one picture against captions"
        + ("" if calibrated else ", and this encoder has no calibration")
        + (": use `min_score`" if instead else ""),
        code="no_match",
        details={"calibrated": calibrated},
    )


@step("records")
def of_rows(
    encoder: Encoder,
    reader: IndexReader,
    modality: Modality,
    query: Vector,
    rows: Iterable[ScoredRow],
    sample: Sample | None,
) -> Mapping[RowId, float]:
    """The match of each row, and of those folded into it.

    Args:
        encoder: with a confidence or a calibration.
        reader: of the rows.
        modality: what they are.
        query: float32 (dim,), of one text or picture.
        rows: of its hits.
        sample: of the collection; needed where the encoder has a confidence.
    """
    each = [pair for one in rows for pair in ((one.row, one.score), *one.alike)]
    if not each:
        return {}
    confidence = confidence_of(encoder)
    if confidence is None:
        assert encoder.calibration is not None
        return {row: encoder.calibration.probability(score) for row, score in each}
    assert sample is not None
    vectors = np.stack([reader.vector(modality, *row) for row, _ in each]).astype(np.float32)
    chances = confidence.hits(modality, query, vectors, Collection.of(sample.vectors @ query, sample.rows))
    return dict(zip((row for row, _ in each), chances.tolist(), strict=True))


def good_enough(hit: Hit, options: SearchOptions) -> bool:
    """Whether a hit scores and matches as high as the options ask for."""
    return (options.min_score is None or hit.score >= options.min_score) and (
        options.min_match is None or (hit.match or 0.0) >= options.min_match
    )


def fits(hits: Sequence[Hit]) -> bool | None:
    """Whether one of the hits does; None where no match is known."""
    known = [hit.fits for hit in hits if hit.fits is not None]
    return any(known) if known else None
