"""Routes about the server itself: the index, health, metrics, and the cookie that holds the token for pages."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from brivl_search import __version__
from brivl_search.encoders.base import confidence_of
from brivl_search.errors import BrivlSearchError
from brivl_search.index import MODALITIES, IndexReader
from brivl_search.server.answers.pictures import read_request
from brivl_search.server.protocol.openapi import body, documented, gives
from brivl_search.server.protocol.problems import Json, Refusal, problem
from brivl_search.server.protocol.schemas.problem import Problem
from brivl_search.server.protocol.schemas.status import IndexAnswer, Limits, Session, Status
from brivl_search.server.security import COOKIE, fits
from brivl_search.server.workers.service import Service

_LOOKED_AT = 2000  # records whose fields are named


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["server"])
    settings = service.settings
    fields: dict[str, list[str]] = {}  # of a published state

    @routes.get("/v1/index", **gives("What is searched", IndexAnswer, 503))
    async def index() -> Json:
        reader = await service.fresh()
        info = reader.info
        if info.state not in fields:
            fields.clear()
            fields[info.state] = await asyncio.to_thread(_fields, reader)
        calibrated = service.encoder.calibration is not None or confidence_of(service.encoder) is not None
        return Json(
            {
                "generation": info.generation,
                "identity": info.identity,
                "state": info.state,
                "directory": str(info.directory),
                "encoder": {
                    "name": info.encoder.name,
                    "fingerprint": info.encoder.fingerprint,
                    "dim": info.encoder.dim,
                    "match": calibrated,
                },
                "matcher": service.matcher(),
                "images": {"rows": info.image.rows, "kind": info.image.kind},
                "texts": {"rows": info.text.rows, "kind": info.text.kind},
                "roots": [given for given, _ in info.roots],
                "fields": fields[info.state],
                "damage": list(reader.damage),
                "read_only": settings.read_only,
                "uploads": settings.upload_dir is not None and not settings.read_only,
                "limits": {name: getattr(settings, name) for name in Limits.model_fields},
                "version": __version__,
            }
        )

    @routes.post(
        "/v1/session",
        summary="Show the token once, and be known by a cookie",
        status_code=204,
        response_class=Response,
        responses={204: {"description": "The cookie is set"}, **documented(415, 422)},
        openapi_extra=body(Session, multipart=False),
    )
    async def session(request: Request) -> Response:
        shown, _ = await read_request(request, Session, settings)
        if not fits(settings, shown.token):
            raise Refusal(401, "this is not the token", "wrong_token")
        answer = Response(None, 204)
        if settings.token is not None:
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, settings.token, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    @routes.get("/healthz", summary="The process lives", responses={200: {"model": Status}})
    async def healthz() -> Json:
        return Json({"status": "ok"})

    @routes.get(
        "/readyz",
        summary="Queries are answered at full speed",
        responses={200: {"model": Status}, 503: {"model": Problem}},
    )
    async def readyz() -> Response:
        try:
            await asyncio.to_thread(service.check_ready)
        except BrivlSearchError as error:
            return problem(503, str(error))
        if not service.ready:
            return problem(503, "the towers are being loaded", {"Retry-After": "1"}, kind="starting")
        return Json({"status": "ok"})

    @routes.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented()},
    )
    async def metrics() -> Response:
        return Response(
            await asyncio.to_thread(service.telemetry.text), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    return routes


def _fields(reader: IndexReader) -> list[str]:
    """Names of the caption file's fields, by which hits can be chosen, as far as the first records show them."""
    found: set[str] = set()
    for modality in MODALITIES:
        for _, _, value in islice(reader.values(modality), _LOOKED_AT):
            record: dict[str, Any] = json.loads(value)["record"]
            found.update(record.get("fields") or {})
    return sorted(found)
