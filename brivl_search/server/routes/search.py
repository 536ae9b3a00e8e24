"""Routes that ask: search, vectors, pairs, classes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from brivl_search.embedding import zero_shot
from brivl_search.embedding.batches import numbers
from brivl_search.embedding.zero_shot import Label
from brivl_search.errors import UsageError
from brivl_search.server.answers.pictures import clean, picture_vectors, read_request
from brivl_search.server.answers.search import answer
from brivl_search.server.protocol.problems import Json, Refusal, documented
from brivl_search.server.protocol.schemas import (
    ClassifyAnswer,
    ClassifyRequest,
    EmbedAnswer,
    MatchAnswer,
    MatchRequest,
    PictureRef,
    PicturesRequest,
    SearchAnswer,
    SearchRequest,
    TextsRequest,
)
from brivl_search.server.security import note_query
from brivl_search.server.workers.service import Service, Vector


def body(model: type[Any], *, multipart: bool = True) -> dict[str, Any]:
    """The request body of a route that reads it itself, for the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    examples = model.model_config.get("json_schema_extra", {}).get("examples")
    if examples:
        content["application/json"]["examples"] = {f"{n}": {"value": value} for n, value in enumerate(examples, 1)}
    if multipart:
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "properties": {
                    "request": {"type": "string", "description": "The JSON of the other content type."},
                    "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                },
            }
        }
    return {"requestBody": {"required": True, "content": content}}


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["search"])
    settings = service.settings

    @routes.post(
        "/v1/search",
        summary="Search by texts, pictures, or a weighted mix of them",
        responses={200: {"model": SearchAnswer}, **documented(400, 404, 413, 415, 422, 503)},
        openapi_extra=body(SearchRequest),
    )
    async def search(request: Request) -> Json:
        """A text finds images, a picture captions (or images, where there are none); `target` insists. Upload
        pictures as `image` parts of a multipart request, and the JSON, if any, as its part `request`."""
        wanted, uploads = await read_request(request, SearchRequest, settings)
        note_query(request, wanted.text)
        return Json(await answer(service, wanted, uploads))

    @routes.post(
        "/v1/embed/text",
        summary="Texts → unit vectors",
        responses={200: {"model": EmbedAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra=body(TextsRequest, multipart=False),
    )
    async def embed_text(request: Request) -> Json:
        wanted, _ = await read_request(request, TextsRequest, settings)
        return Json(embedded(service, await text_vectors(service, wanted.texts)))

    @routes.post(
        "/v1/embed/image",
        summary="Pictures → unit vectors",
        responses={200: {"model": EmbedAnswer}, **documented(400, 404, 413, 415, 422, 503)},
        openapi_extra=body(PicturesRequest),
    )
    async def embed_image(request: Request) -> Json:
        wanted, uploads = await read_request(request, PicturesRequest, settings)
        return Json(embedded(service, await picture_vectors(service, refs(wanted.images, uploads), uploads)))

    @routes.post(
        "/v1/match",
        summary="How well texts and pictures belong together",
        responses={200: {"model": MatchAnswer}, **documented(400, 404, 413, 415, 422, 503)},
        openapi_extra=body(MatchRequest),
    )
    async def match(request: Request) -> Json:
        """The cosine of each pair, and the probability that they belong together where the encoder is calibrated."""
        wanted, uploads = await read_request(request, MatchRequest, settings)
        texts = await text_vectors(service, [pair.text for pair in wanted.pairs])
        pictures = await _each(service, wanted.pairs, uploads)
        calibration = service.encoder.calibration
        rows = []
        for text, picture in zip(texts, pictures, strict=True):
            score = float(text @ picture)
            known = None if calibration is None else round(calibration.probability(score), 4)
            rows.append({"score": round(score, 6), "match": known})
        return Json({"pairs": rows})

    @routes.post(
        "/v1/classify",
        summary="Sort pictures into classes that are given by name",
        responses={200: {"model": ClassifyAnswer}, **documented(400, 404, 413, 415, 422, 503)},
        openapi_extra=body(ClassifyRequest),
    )
    async def classify(request: Request) -> Json:
        """Zero-shot, as `brivl-search classify`: `probability` is a label's share of the odds among all labels."""
        wanted, uploads = await read_request(request, ClassifyRequest, settings)
        labels = _labels(wanted)
        zero_shot.check_templates(wanted.templates)
        pictures = await picture_vectors(service, refs(wanted.images, uploads), uploads)
        classes = await asyncio.to_thread(_class_vectors, service, labels, wanted.templates)
        calibration = service.encoder.calibration
        results = []
        for picture in pictures:
            guesses = zero_shot.classify(picture, labels, classes, calibration, wanted.k)
            results.append({"labels": [_guess(guess) for guess in guesses]})
        return Json({"results": results})

    return routes


def refs(given: list[PictureRef], uploads: list[bytes]) -> list[PictureRef]:
    """The pictures named, or all uploads. Raises Refusal: there is none."""
    pictures = given or [PictureRef(image=at) for at in range(len(uploads))]
    if not pictures:
        raise Refusal(400, "no picture: upload `image` parts, or name some in `images`")
    return pictures


async def text_vectors(service: Service, texts: list[str]) -> list[Vector]:
    """float32 (dim,) of each. Raises Refusal."""
    most = service.settings.max_texts
    if len(texts) > most:
        raise Refusal(413, f"{len(texts)} texts: this server takes {most} in a request")
    return await service.texts.ask([clean(text, service.settings) for text in texts])


async def _each(service: Service, pairs: list[Any], uploads: list[bytes]) -> list[Vector]:
    """The picture of each pair; one that is named several times is embedded once."""
    named = [(pair.key, pair.image, pair.base64) for pair in pairs]
    different = list(dict.fromkeys(named))
    pictures = [PictureRef(key=key, image=image, base64=base64) for key, image, base64 in different]
    vectors = dict(zip(different, await picture_vectors(service, pictures, uploads), strict=True))
    return [vectors[one] for one in named]


def embedded(service: Service, vectors: list[Vector]) -> dict[str, Any]:
    """`schemas.EmbedAnswer`."""
    encoder = service.encoder
    return {
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "vectors": [numbers(vector, "float32") for vector in vectors],
    }


def _labels(wanted: ClassifyRequest) -> list[Label]:
    labels: dict[str, Label] = {}
    for one in wanted.labels:
        names = tuple(dict.fromkeys(name.strip() for name in ([one] if isinstance(one, str) else one)))
        if not all(names):
            raise UsageError("labels: a label is empty: give it a name")
        if names[0] in labels:
            raise UsageError(f"labels: {names[0]!r} is there twice: leave one out")
        labels[names[0]] = Label(names[0], names)
    return list(labels.values())


def _class_vectors(service: Service, labels: list[Label], templates: list[str]) -> Any:
    said = sum(len(zero_shot.sentences(name, templates)) for label in labels for name in label.names)
    most = 16 * service.settings.max_texts
    if said > most:
        raise Refusal(413, f"labels and templates make {said} sentences: this server takes {most} in a request")
    return zero_shot.class_vectors(_Texts(service), [label.names for label in labels], templates)  # type: ignore[arg-type]


class _Texts:
    """The text tower's thread, for what wants an encoder of texts and waits."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def encode_texts(self, texts: list[str]) -> Any:
        return np.stack(self._service.texts.submit(texts).result())


def _guess(guess: zero_shot.Guess) -> dict[str, Any]:
    shown = None if guess.probability is None else round(guess.probability, 4)
    return {"label": guess.label, "score": round(guess.score, 6), "probability": shown}
