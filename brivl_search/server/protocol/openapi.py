"""The OpenAPI document: what routes take and answer, errors included."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from brivl_search.server.protocol.schemas.compat import KnnRequest, MetadataRequest
from brivl_search.server.protocol.schemas.items import AddRequest
from brivl_search.server.protocol.schemas.problem import Problem
from brivl_search.server.protocol.schemas.search import SearchRequest
from brivl_search.server.protocol.schemas.status import Session
from brivl_search.server.protocol.schemas.vectors import ClassifyRequest, MatchRequest, PicturesRequest, TextsRequest

PICTURE: dict[str, Any] = {"type": "string", "format": "binary"}
_READ_BY_ROUTES = (
    SearchRequest,
    TextsRequest,
    PicturesRequest,
    MatchRequest,
    ClassifyRequest,
    AddRequest,
    Session,
    KnnRequest,
    MetadataRequest,
)
_SAID = {
    400: "Something in it cannot be used",
    401: "A token is wanted",
    403: "Not allowed",
    404: "Not in the index",
    409: "The file has changed, or another build is writing",
    413: "Too large",
    415: "Neither JSON nor multipart",
    422: "Not of the shape above",
    429: "Too many requests",
    503: "The index cannot answer now",
}


def gives(summary: str, answer: Any, *statuses: int) -> dict[str, Any]:
    """How a route is declared that answers in JSON.

    Args:
        summary: a line.
        answer: the answer's type, or a line about it.
        statuses: of its errors; those of the guard are added.
    """
    good = {"description": answer} if isinstance(answer, str) else {"model": answer}
    return {"summary": summary, "responses": {200: good, **documented(*statuses)}}


def takes(
    summary: str, request: type[BaseModel], answer: Any, *statuses: int, multipart: bool = True
) -> dict[str, Any]:
    """How a route is declared that reads its own request, which is JSON, and answers in JSON.

    Args:
        summary: a line.
        request: shape of the request.
        answer: as of `gives`.
        statuses: of its errors, beside 400, 413, 422 and 503, which all of these routes have.
        multipart: whether pictures may be uploaded with the JSON.
    """
    declared = gives(summary, answer, 400, 413, 422, 503, *statuses)
    return {**declared, "openapi_extra": body(request, multipart=multipart)}


def body(model: type[BaseModel], *, multipart: bool = True) -> dict[str, Any]:
    """The request body of a route that reads it itself."""
    json: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    more = model.model_config.get("json_schema_extra")
    if isinstance(more, dict) and isinstance(examples := more.get("examples"), list):
        json["examples"] = {f"{n}": {"value": value} for n, value in enumerate(examples, 1)}
    content: dict[str, Any] = {"application/json": json}
    if multipart:
        content |= form(
            {
                "request": {"type": "string", "description": "The JSON of the other content type."},
                "image": {"type": "array", "items": PICTURE},
            }
        )
    return {"requestBody": {"required": True, "content": content}}


def form(properties: dict[str, Any], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a multipart request."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {"multipart/form-data": {"schema": {**schema, "required": list(required)} if required else schema}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors of a route; those of the guard are added."""
    return {status: {"model": Problem, "description": _SAID[status]} for status in sorted({401, 403, 429, *statuses})}


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the shapes of the requests that routes read by themselves; made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, shapes = models_json_schema(
            [(model, "validation") for model in _READ_BY_ROUTES], ref_template="#/components/schemas/{model}"
        )
        parts = made.setdefault("components", {})
        parts.setdefault("schemas", {}).update(shapes["$defs"])
        parts["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": "brivl_token"},
        }
        made["security"] = [{}, {"token": []}, {"cookie": []}]
        app.openapi_schema = made
    return app.openapi_schema
