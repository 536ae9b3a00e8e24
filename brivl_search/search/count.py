"""Of a collection's rows, how many fit: the sum of their chances, where these are not very low.

The best rows are looked at one by one. Of the rest, a sample stands for all: those of its rows that score below the
last row that was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brivl_search.embedding.query_pictures import Vector
from brivl_search.encoders.confidence import Collection, Confidence, how_many
from brivl_search.index import IndexReader, Modality
from brivl_search.search.rows import ScoredRow
from brivl_search.search.sample import Sample

LOOKED_AT = 2000  # rows at most, the best


@dataclass(frozen=True)
class Count:
    """How many rows fit a query.

    Attributes:
        fit: about so many.
        rows: there are, or a filter lets through.
        looked_at: the best of them, one by one.
    """

    fit: float
    rows: int
    looked_at: int

    def to_dict(self) -> dict[str, float]:
        return {"fit": round(self.fit, 1), "rows": self.rows, "looked_at": self.looked_at}


def estimate(
    confidence: Confidence,
    reader: IndexReader,
    modality: Modality,
    query: Vector,
    best: list[ScoredRow],
    sample: Sample,
) -> Count:
    """From the best rows of a query, best first, and a sample of all."""
    scores = sample.vectors @ query
    against = Collection.of(scores, sample.rows)
    fit = 0.0
    if best:
        vectors = np.stack([reader.vector(modality, *one.row) for one in best]).astype(np.float32)
        fit = how_many(confidence.hits(modality, query, vectors, against))
    rest = sample.rows - len(best)
    below = sample.vectors[scores < best[-1].score] if best else sample.vectors
    if rest > 0 and len(below):
        fit += rest * how_many(confidence.hits(modality, query, below, against)) / len(below)
    return Count(min(fit, float(sample.rows)), sample.rows, len(best))
