"""Everything put together: the application that uvicorn, or a test, runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from brivl_search import __version__
from brivl_search.search.engine import Engine
from brivl_search.server.protocol import schemas
from brivl_search.server.protocol.problems import install
from brivl_search.server.routes import compat
from brivl_search.server.routes import items as routes_items
from brivl_search.server.routes import search as routes_search
from brivl_search.server.routes import status as routes_status
from brivl_search.server.security import Guard
from brivl_search.server.settings import Settings
from brivl_search.server.workers.service import Service

_DOCS = Path(__file__).parent / "docs"
_READ_BY_HAND = (
    schemas.SearchRequest,
    schemas.TextsRequest,
    schemas.PicturesRequest,
    schemas.MatchRequest,
    schemas.ClassifyRequest,
    schemas.AddRequest,
    schemas.Session,
    schemas.KnnRequest,
    schemas.MetadataRequest,
)


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """The server's application over an open index.

    Args:
        engine: of the index; towers load when the application starts.
        settings: choices; None: the defaults, which are for this machine alone.
    """
    settings = settings or Settings()
    service = Service(engine, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="brivl-search",
        version=__version__,
        description="Search images and captions by Chinese and English text, and by picture.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    install(app)
    for routes in (
        routes_search.router(service),
        routes_items.router(service),
        routes_status.router(service),
        compat.router(service),
    ):
        app.include_router(routes)
    app.mount("/docs", StaticFiles(directory=_DOCS, html=True), name="docs")
    if settings.static.is_dir():
        app.mount("/", StaticFiles(directory=settings.static, html=True), name="page")
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=4)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the shapes of the requests that routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, shapes = models_json_schema(
            [(model, "validation") for model in _READ_BY_HAND], ref_template="#/components/schemas/{model}"
        )
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(shapes["$defs"])
        parts["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": "brivl_token"},
        }
        document["security"] = [{}, {"token": []}, {"cookie": []}]
        app.openapi_schema = document
    return app.openapi_schema
