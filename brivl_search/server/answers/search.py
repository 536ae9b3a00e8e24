"""From a search request to hits: terms become vectors, vectors a query, and hits JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from brivl_search.encoders.base import Origin
from brivl_search.errors import UsageError
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.filters import Filter
from brivl_search.search.hits import Hit, pixels_of, text_of
from brivl_search.search.match import fits
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import TARGETS, Query, Term
from brivl_search.search.rerank import QueryPicture
from brivl_search.search.vectors import combine
from brivl_search.server.answers.items import find_item
from brivl_search.server.answers.pictures import clean, from_base64, picture_vectors
from brivl_search.server.protocol import keys
from brivl_search.server.protocol.problems import Refusal, too_many
from brivl_search.server.protocol.schemas.base import PictureRef
from brivl_search.server.protocol.schemas.search import SearchFilters, SearchRequest, SearchTerm
from brivl_search.server.settings import Settings
from brivl_search.server.workers.service import MOST_ALIKE, Search, Service, Vector, options_for


@dataclass(frozen=True)
class AnyKind(Query):
    """A query by a bare vector: of a text or of a picture, nobody knows, so there is no `match`."""

    @property
    def single(self) -> Literal["text", "image"] | None:
        return None


async def answer(service: Service, request: SearchRequest, uploads: Sequence[bytes]) -> dict[str, Any]:
    """`schemas.SearchAnswer`. Raises Refusal, BrivlSearchError."""
    start = time.perf_counter()
    settings = service.settings
    deep = request.offset + request.k
    if deep > settings.max_k:
        message = f"offset + k is {deep}: this server gives {settings.max_k} hits at most"
        raise Refusal(413, message, "too_many_hits", asked=deep, limit=settings.max_k)
    terms = _terms(request, len(uploads))
    if len(terms) > settings.max_terms:
        raise too_many(len(terms), "terms", settings.max_terms, "too_many_terms")
    options = _options(request, service.settings)
    query, vector = await _combined(service, terms, uploads, request)
    shown = await _shown(service, terms[0], uploads) if request.rerank and query.single == "image" else None
    hits, reader = await service.search(Search(query, vector, options, shown))
    counted = None
    if request.count:
        counted = await service.slowly(partial(service.engine.count, query, options, vector=vector))
    page = hits[request.offset :]
    target = page[0].kind if page else _target(query, reader.count("text") > 0)
    return {
        "generation": reader.info.generation,
        "state": reader.info.state,
        "target": target + "s",
        "took_ms": round(1000 * (time.perf_counter() - start), 3),
        "offset": request.offset,
        "more": len(hits) == request.offset + request.k < settings.max_k,
        "hits": [hit_row(hit) for hit in page],
        "fits": fits(hits),
        "count": None if counted is None else counted.to_dict(),
        "reranked": service.matcher() if request.rerank else None,
        "unknown_words": service.engine.unknown_words(query) if query.texts else [],
        "note": None if hits or not options.filter else await _why_nothing(service, query, options),
    }


async def _why_nothing(service: Service, query: Query, options: SearchOptions) -> dict[str, Any] | None:
    """`schemas.problem.Note`."""
    reason = await service.slowly(partial(service.engine.why_nothing, query, options))
    return None if reason is None else asdict(reason)


def _target(query: Query, captions: bool) -> Literal["image", "text"]:
    """What "auto" means, see `Engine.query`."""
    if query.target in ("image", "text"):
        return "image" if query.target == "image" else "text"
    return "text" if query.single == "image" and captions else "image"


def _terms(request: SearchRequest, uploads: int) -> list[SearchTerm]:
    terms = [] if request.text is None else [SearchTerm(text=request.text)]
    terms += request.terms
    named = {term.image for term in terms}
    terms += [SearchTerm(image=at) for at in range(uploads) if at not in named]
    terms = [term for term in terms if term.weight]
    if not any(term.weight > 0 for term in terms):
        message = "nothing to look for: give `text`, an image, or a term with a weight above 0"
        raise Refusal(400, message, "nothing_asked")
    return terms


def _options(request: SearchRequest, settings: Settings) -> SearchOptions:
    """Raises Refusal: a matcher is asked for, and there is none."""
    dedupe = request.dedupe
    if request.rerank and settings.rerank_with is None:
        raise Refusal(400, "`rerank`: this server has no matcher: start it with `rerank_with`", "no_matcher")
    return options_for(
        SearchOptions(
            exact=request.exact,
            min_score=request.min_score,
            min_match=request.min_match,
            filter=_filter(request.filters),
            alike=(ALIKE if dedupe is True else float(dedupe)) if dedupe else None,
            most_alike=MOST_ALIKE,
            rerank_with=settings.rerank_with if request.rerank else None,
            rerank_top=settings.rerank_top,
        )
    )


def _filter(wanted: SearchFilters) -> Filter:
    where = []
    for name, values in wanted.where.items():
        if "=" in name or not name.strip():
            raise UsageError(f"`where`: {name!r} is no name of a field", code="bad_where", details={"where": name})
        where += [f"{name}={value}" for value in ([values] if isinstance(values, str) else values)]
    return Filter.of(
        under=wanted.under,
        glob=wanted.glob,
        after=wanted.after,
        before=wanted.before,
        min_size=wanted.min_size,
        where=where,
    )


async def _combined(
    service: Service, terms: Sequence[SearchTerm], uploads: Sequence[bytes], request: SearchRequest
) -> tuple[Query, Vector]:
    """The query and its vector, float32 (dim,). Raises Refusal; UsageError: the terms cancel each other out."""
    vectors: dict[int, Vector] = {}
    parts: dict[int, Term] = {}
    said: dict[int, str] = {}
    shown: dict[int, PictureRef] = {}
    for at, term in enumerate(terms):
        if term.text is not None:
            said[at] = clean(term.text, service.settings)
            parts[at] = Term(said[at], "text", term.weight)
        elif term.vector is not None:
            vectors[at] = unit(term.vector, service.encoder.dim)
            parts[at] = Term(b"", "image", term.weight)
        elif term.key is not None:
            item = await find_item(service, term.key)
            stored = item.vector.astype(np.float32)
            vectors[at] = stored / max(float(np.linalg.norm(stored)), 1e-12)
            parts[at] = Term(b"", item.modality, term.weight)
        else:
            shown[at] = PictureRef(image=term.image, base64=term.base64)
            parts[at] = Term(b"", "image", term.weight)
    if shown:
        vectors |= dict(zip(shown, await picture_vectors(service, list(shown.values()), uploads), strict=True))
    if said:
        vectors |= dict(zip(said, await service.texts.ask(list(said.values())), strict=True))
    kind = AnyKind if any(term.vector is not None for term in terms) else Query
    if request.rerank and (len(terms) > 1 or not (said or (parts[0].kind == "image" and not terms[0].vector))):
        message = "`rerank` is for one text on images, or one picture on captions: leave it out"
        raise Refusal(400, message, "no_rerank")
    query = kind(tuple(parts[at] for at in range(len(terms))), request.k + request.offset, TARGETS[request.target])
    vector = combine(query, [vectors[at] for at in range(len(terms))])
    if isinstance(vector, UsageError):
        raise Refusal(400, "the terms cancel each other out: change a weight", "terms_cancel")
    return query, vector


async def _shown(service: Service, term: SearchTerm, uploads: Sequence[bytes]) -> QueryPicture:
    """A query's only picture for the matcher; like all that clients send, it is decoded in another process."""
    if term.key is not None:
        return QueryPicture(key=(await find_item(service, term.key)).key)
    data = from_base64(term.base64, service.settings) if term.base64 is not None else uploads[term.image or 0]
    matcher = service.engine.reranker(str(service.settings.rerank_with)).matcher
    one = await service.decoders.pixels(data, matcher.pixels)
    return QueryPicture(one.pixels, Origin("", one.width, one.height, data))


def unit(numbers: Sequence[float], dim: int) -> Vector:
    """A client's vector, scaled to unit length. Raises Refusal."""
    vector = np.asarray(numbers, np.float64)
    if vector.shape != (dim,):
        raise Refusal(422, f"vector: {len(numbers)} numbers, and this encoder has {dim}", "bad_vector", dim=dim)
    largest = float(np.abs(vector).max())
    if not 0 < largest < np.inf:
        raise Refusal(422, "vector: it has no direction", "bad_vector", dim=dim)
    vector = vector / largest  # first, or squares of what is very large or small leave the range of numbers
    scaled: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return scaled


def hit_row(hit: Hit) -> dict[str, Any]:
    """`schemas.SearchHit`."""
    key = keys.encode(hit.kind, hit.key)
    record = hit.record
    image = record.get("image") if hit.kind == "text" else None
    return {
        "rank": hit.rank,
        "key": key,
        "kind": hit.kind,
        "path": hit.path,
        "text": hit.text,
        "score": round(hit.score, 6),
        "match": None if hit.match is None else round(hit.match, 4),
        "rerank": None if hit.rerank is None else round(hit.rerank, 4),
        "width": pixels_of(record, "width"),
        "height": pixels_of(record, "height"),
        "taken": text_of(record, "taken"),
        "image_key": key if hit.kind == "image" else None if image is None else keys.encode("image", image),
        "field": text_of(record, "field"),
        "generated": hit.generated,
        "duplicates": len(hit.duplicates),
        "duplicate_keys": [keys.encode(one.kind, one.key) for one in hit.duplicates],
    }
