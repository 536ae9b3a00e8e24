"""Routes that ask the towers alone: vectors, pairs, classes."""

from __future__ import annotations

from fastapi import APIRouter, Request

from brivl_search.server.answers import vectors
from brivl_search.server.answers.pictures import read_request
from brivl_search.server.protocol.openapi import takes
from brivl_search.server.protocol.problems import Json
from brivl_search.server.protocol.schemas.vectors import (
    ClassifyAnswer,
    ClassifyRequest,
    EmbedAnswer,
    MatchAnswer,
    MatchRequest,
    PicturesRequest,
    TextsRequest,
)
from brivl_search.server.workers.service import Service


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["search"])
    settings = service.settings

    @routes.post("/v1/embed/text", **takes("Texts → unit vectors", TextsRequest, EmbedAnswer, 415, multipart=False))
    async def embed_text(request: Request) -> Json:
        wanted, _ = await read_request(request, TextsRequest, settings)
        return Json(await vectors.embed_texts(service, wanted))

    @routes.post("/v1/embed/image", **takes("Pictures → unit vectors", PicturesRequest, EmbedAnswer, 404, 415))
    async def embed_image(request: Request) -> Json:
        return Json(await vectors.embed_images(service, *await read_request(request, PicturesRequest, settings)))

    @routes.post(
        "/v1/match", **takes("How well texts and pictures belong together", MatchRequest, MatchAnswer, 404, 415)
    )
    async def match(request: Request) -> Json:
        """The cosine of each pair, and the probability that they belong together where the encoder is calibrated."""
        return Json(await vectors.match(service, *await read_request(request, MatchRequest, settings)))

    @routes.post(
        "/v1/classify",
        **takes("Sort pictures into classes that are given by name", ClassifyRequest, ClassifyAnswer, 404, 415),
    )
    async def classify(request: Request) -> Json:
        """Zero-shot, as `brivl-search classify`: `probability` is a label's share of the odds among all labels."""
        return Json(await vectors.classify(service, *await read_request(request, ClassifyRequest, settings)))

    return routes
