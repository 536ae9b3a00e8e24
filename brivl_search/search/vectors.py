"""Queries → vectors: every different text and picture goes through its tower once, then they are summed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brivl_search.embedding.query_pictures import Vector, embed_pictures
from brivl_search.encoders.base import Encoder, encode_queries
from brivl_search.errors import UsageError
from brivl_search.search.queries import Query
from brivl_search.steps import step

_TEXTS = 256  # at most, in one call of the tower
_NOTHING = 1e-4  # a sum this small beside its weights has no direction left


@step("encode")
def embed(encoder: Encoder, queries: Sequence[Query]) -> list[Vector | UsageError]:
    """float32 (dim,) of each query, unit length; or what is wrong: a picture cannot be read, terms cancel out."""
    terms = [term for query in queries for term in query.terms]
    known: dict[tuple[str, str | bytes], Vector | UsageError] = {}
    texts = list(dict.fromkeys(text for query in queries for text in query.texts))
    for at in range(0, len(texts), _TEXTS):
        some = texts[at : at + _TEXTS]
        known |= zip((("text", text) for text in some), encode_queries(encoder, some), strict=True)
    found = embed_pictures(encoder, [term.content for term in terms if term.kind == "image"])
    known |= {("image", source): vector for source, vector in found.items()}
    return [combine(query, [known[term.kind, term.content] for term in query.terms]) for query in queries]


def combine(query: Query, vectors: Sequence[Vector | UsageError]) -> Vector | UsageError:
    """A query's vector from those of its terms; or what is wrong, and a term's own trouble first."""
    total: Vector | None = None
    for term, vector in zip(query.terms, vectors, strict=True):
        if isinstance(vector, UsageError):
            return vector
        share = np.float32(term.weight) * vector
        total = share if total is None else total + share
    assert total is not None
    if len(vectors) == 1 and query.terms[0].weight == 1:
        return total
    length = float(np.linalg.norm(total))
    if length < _NOTHING * sum(abs(term.weight) for term in query.terms):
        return UsageError(
            f"{query}: the terms cancel each other out: change a weight, such as 2:dog", code="terms_cancel"
        )
    return (total / length).astype(np.float32)
