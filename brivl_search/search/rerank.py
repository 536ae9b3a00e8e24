"""A matcher re-orders the first hits of a query: it reads the text and every picture together.

Only the order changes. `Hit.score` stays the cosine and `Hit.match` the chance of the pair, both of the two towers.
What stands behind the first hits stays where it is, and so does a hit whose picture cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.embedding.reranker import Reranker
from brivl_search.encoders.base import Origin
from brivl_search.encoders.matching import KeepsRegions, Matcher
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.search.hits import Hit
from brivl_search.search.queries import Query
from brivl_search.search.rows import RowId
from brivl_search.steps import step


@dataclass(frozen=True)
class QueryPicture:
    """A query's picture that the query itself does not hold.

    Attributes:
        pixels: uint8 (S, S, 3), as the matcher takes them; None: it is an image of the index.
        origin: of the pixels.
        key: of the image of the index.
    """

    pixels: NDArray[np.uint8] | None = None
    origin: Origin | None = None
    key: str = ""


def seen(reader: IndexReader, reranker: Reranker, shown: QueryPicture) -> Any:
    """What the matcher reads of a query's picture.

    Raises:
        UsageError: it is an image of the index that is kept nowhere and whose file cannot be read.
    """
    if shown.pixels is not None and shown.origin is not None:
        return reranker.shown(shown.pixels, shown.origin)
    row = reader.find("image", shown.key)
    found = None if row is None else kept(reader, reranker.matcher, row)
    if found is not None:
        return found
    path = shown.key if row is None else str(reader.record("image", *row).get("path", shown.key))
    return reranker.asked(path)


def check(query: Query, modality: Modality) -> None:
    """Raises UsageError: a query that is no pair with its hits, which are of `modality`."""
    if query.single not in (None, modality):
        return
    if query.single == "image":
        raise UsageError(
            "`rerank_with` reads a picture with captions, and these hits are images: ask for texts, where the index "
            "has any, or leave it out",
            code="no_rerank",
        )
    what = "captions by a text" if query.single == "text" else "a sum of several"
    raise UsageError(
        f"`rerank_with` is for one text against images, or one picture against captions, not for {what}: leave it out",
        code="no_rerank",
    )


@step("regions")
def kept(reader: IndexReader, matcher: Matcher, row: RowId) -> Any | None:
    """What the index keeps of an image for a matcher; None: nothing, or it is damaged: its file is to be read."""
    if not isinstance(matcher, KeepsRegions):
        return None
    found = reader.regions(*row, matcher.fingerprint)
    return None if found is None else matcher.picture(found.tokens, found.hub)


@step("reorder")
def reorder(
    reranker: Reranker,
    query: Query,
    hits: Sequence[Hit],
    top: int,
    kept: Sequence[Any | None] = (),
    shown: Any | None = None,
) -> list[Hit]:
    """The same hits, the first `top` of them in the matcher's order, with new ranks and `Hit.rerank`.

    Args:
        reranker: the matcher.
        query: one text or one picture.
        hits: best first.
        top: how many change places.
        kept: what the index keeps of the first hits' pictures.
        shown: what the matcher reads of the query's picture, where that is known; None: it is read.

    Raises:
        UsageError: the query's picture cannot be read.
    """
    first, term = hits[:top], query.terms[0]
    if query.single == "text":
        pictures = reranker.read([str(hit.record.get("path", "")) for hit in first], kept)
        texts = [str(term.content)] * len(first)
    else:
        pictures = [reranker.asked(term.content) if shown is None else shown] * len(first)
        texts = [hit.text or "" for hit in first]
    placed = reranker.order(texts, pictures, [hit.score for hit in first])
    ordered = [replace(first[one.candidate], rerank=one.score) for one in placed]
    return [replace(hit, rank=rank) for rank, hit in enumerate([*ordered, *hits[top:]], 1)]
