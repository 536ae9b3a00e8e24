"""Routes to what the index holds: items, their pictures, the map; and to change it."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from brivl_search.server.answers.changes import Changes
from brivl_search.server.answers.files import Files
from brivl_search.server.answers.items import describe, find_item
from brivl_search.server.answers.map import Maps
from brivl_search.server.answers.pictures import read_request
from brivl_search.server.protocol.openapi import PICTURE, documented, gives, takes
from brivl_search.server.protocol.problems import Json, Refusal
from brivl_search.server.protocol.schemas.items import AddAnswer, AddRequest, ItemAnswer, MapAnswer, RemoveAnswer
from brivl_search.server.workers.service import Service

Name = Annotated[str, Path(max_length=1000, description="A `key` of a hit.")]


class Side(IntEnum):
    tiny = 128
    small = 256
    middle = 512
    large = 1024


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["items"])
    settings = service.settings
    files, maps, changes = Files(service), Maps(service), Changes(service)
    service.at_start.append(changes.sweep)
    file: dict[str, Any] = {
        "response_class": Response,
        "responses": {
            200: {"content": {"image/*": {"schema": PICTURE}}},
            304: {"description": "As known"},
            **documented(404, 409, 422, 503),
        },
    }

    @routes.get("/v1/items/{key}", **gives("All that the index keeps of an item", ItemAnswer, 404, 422, 503))
    async def item(key: Name) -> Json:
        return Json(await describe(service, key))

    @routes.get(
        "/v1/items/{key}/thumbnail",
        summary="A small JPEG of an image, or of a caption's image",
        **file,
    )
    async def thumbnail(
        request: Request,
        key: Name,
        size: Annotated[Side, Query(description="Most pixels of the longer side.")] = Side.small,
    ) -> Response:
        return await files.thumbnail(key, int(size), request)

    @routes.get("/v1/items/{key}/image", summary="The image's file", **file)
    async def image(request: Request, key: Name) -> Response:
        """Sent only if its content still is what was indexed."""
        return await files.image(key, request)

    @routes.get("/v1/map", **gives("All images as points of a plane", MapAnswer, 503))
    async def collection_map() -> Json:
        """The two principal components of the vectors; of more than 20,000 images an evenly spread sample."""
        return Json(await maps.get())

    @routes.post("/v1/items", **takes("Add images", AddRequest, AddAnswer, 409, 415))
    async def add(request: Request) -> Json:
        """Files and folders that lie under the index's own folders (`paths`), or uploads, which are kept in
        the server's `upload_dir`. Answered when they can be found."""
        check_writable()
        wanted, uploads = await read_request(request, AddRequest, settings)
        if uploads and wanted.paths:
            raise Refusal(400, "give either `paths` or uploads", "paths_or_uploads")
        return Json(await (changes.add_uploads(uploads) if uploads else changes.add_paths(wanted.paths)))

    @routes.delete(
        "/v1/items/{key}",
        **gives("Remove an item, and an image's captions with it", RemoveAnswer, 404, 409, 422, 503),
    )
    async def remove(key: Name) -> Json:
        """The file itself is left alone, unless it was uploaded."""
        check_writable()
        return Json(await changes.remove(await find_item(service, key)))

    def check_writable() -> None:
        if settings.read_only:
            raise Refusal(403, "this server is read-only", "read_only")

    return routes
