"""A matcher re-orders the first hits of a query: it reads the text and every picture together.

Only the order changes. `Hit.score` stays the cosine and `Hit.match` the chance of the pair, both of the two towers.
What stands behind the first hits stays where it is, and so does a hit whose picture cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from brivl_search.embedding.reranker import Reranker
from brivl_search.errors import UsageError
from brivl_search.index import Modality
from brivl_search.search.hits import Hit
from brivl_search.search.queries import Query
from brivl_search.steps import step


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


@step("reorder")
def reorder(reranker: Reranker, query: Query, hits: Sequence[Hit], top: int) -> list[Hit]:
    """The same hits, the first `top` of them in the matcher's order, with new ranks and `Hit.rerank`.

    Raises:
        UsageError: the query's picture cannot be read.
    """
    first, term = hits[:top], query.terms[0]
    if query.single == "text":
        pictures = reranker.read([str(hit.record.get("path", "")) for hit in first])
        texts = [str(term.content)] * len(first)
    else:
        pictures = [reranker.asked(term.content)] * len(first)
        texts = [hit.text or "" for hit in first]
    placed = reranker.order(texts, pictures, [hit.score for hit in first])
    ordered = [replace(first[one.candidate], rerank=one.score) for one in placed]
    return [replace(hit, rank=rank) for rank, hit in enumerate([*ordered, *hits[top:]], 1)]
