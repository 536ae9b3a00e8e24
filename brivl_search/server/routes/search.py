"""The route that searches."""

from __future__ import annotations

from fastapi import APIRouter, Request

from brivl_search.server.answers.pictures import read_request
from brivl_search.server.answers.search import answer
from brivl_search.server.protocol.openapi import takes
from brivl_search.server.protocol.problems import Json
from brivl_search.server.protocol.schemas.search import SearchAnswer, SearchRequest
from brivl_search.server.security import note_query
from brivl_search.server.workers.service import Service


def router(service: Service) -> APIRouter:
    """The route, answering from a service."""
    routes = APIRouter(tags=["search"])

    @routes.post(
        "/v1/search",
        **takes("Search by texts, pictures, or a weighted mix of them", SearchRequest, SearchAnswer, 404, 415),
    )
    async def search(request: Request) -> Json:
        """A text finds images, a picture captions (or images, where there are none); `target` insists. Upload
        pictures as `image` parts of a multipart request, and the JSON, if any, as its part `request`."""
        wanted, uploads = await read_request(request, SearchRequest, service.settings)
        note_query(request, wanted.text)
        return Json(await answer(service, wanted, uploads))

    return routes
