"""Queries → vectors: every different text and picture goes through its tower once, then they are summed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.containers.place import SEPARATOR
from brivl_search.corpus.images import DecodedImage, decode, read_file
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.errors import ImageError, UsageError
from brivl_search.search.queries import Query
from brivl_search.steps import step

Vector = NDArray[np.float32]

_TEXTS, _PICTURES = 256, 32  # at most, in one call of a tower
_NOTHING = 1e-4  # a sum this small beside its weights has no direction left


@step("encode")
def embed(encoder: Encoder, queries: Sequence[Query]) -> list[Vector | UsageError]:
    """float32 (dim,) of each query, unit length; or what is wrong: a picture cannot be read, terms cancel out."""
    terms = [term for query in queries for term in query.terms]
    known: dict[tuple[str, str | bytes], Vector | UsageError] = {}
    texts = list(dict.fromkeys(text for query in queries for text in query.texts))
    for at in range(0, len(texts), _TEXTS):
        some = texts[at : at + _TEXTS]
        known |= zip((("text", text) for text in some), encoder.encode_texts(some), strict=True)
    pictures = list(dict.fromkeys(term.content for term in terms if term.kind == "image"))
    for at in range(0, len(pictures), _PICTURES):
        found = _encode_pictures(encoder, pictures[at : at + _PICTURES])
        known |= {("image", source): vector for source, vector in found.items()}
    return [combine(query, [known[term.kind, term.content] for term in query.terms]) for query in queries]


def _encode_pictures(encoder: Encoder, sources: Sequence[str | bytes]) -> dict[str | bytes, Vector | UsageError]:
    out: dict[str | bytes, Vector | UsageError] = {}
    pictures: dict[str | bytes, DecodedImage] = {}
    for source in sources:
        try:
            pictures[source] = decode(read_file(source) if isinstance(source, str) else source, encoder.pixels)
        except ImageError as error:
            out[source] = _unreadable(source, error)
    if pictures:
        origins = [
            Origin(os.path.abspath(source), one.width, one.height)
            if isinstance(source, str)
            else Origin("", one.width, one.height, source)
            for source, one in pictures.items()
        ]
        pixels = np.stack([one.pixels for one in pictures.values()])
        out |= zip(pictures, encode_pictures(encoder, pixels, origins), strict=True)
    return out


def _unreadable(source: str | bytes, error: ImageError) -> UsageError:
    name = source if isinstance(source, str) else "of these bytes"
    if error.reason != "file vanished":
        return UsageError(f"`image` {name}: {error}", code=error.code, details=error.details)
    why = f" ({error.detail})" if SEPARATOR in name else ""  # which member of which container
    return UsageError(f"`image` {name}: no such file{why}", code="no_such_file", details={"path": name})


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
