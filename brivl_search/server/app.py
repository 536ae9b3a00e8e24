"""The application: routes, page, guard. uvicorn or a test runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from brivl_search import __version__
from brivl_search.search.engine import Engine
from brivl_search.server.head import Head
from brivl_search.server.protocol.openapi import document
from brivl_search.server.protocol.problems import install
from brivl_search.server.query_text import QueryText
from brivl_search.server.routes import compat, items, search, status, vectors
from brivl_search.server.security import Guard
from brivl_search.server.settings import Settings
from brivl_search.server.workers.service import Service

_DOCS = Path(__file__).parent / "docs"


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
    for group in (search, vectors, items, status, compat):
        app.include_router(group.router(service))
    # Relative, so that a proxy may serve all of this below a folder.
    app.add_route("/docs", lambda request: RedirectResponse("docs/"), include_in_schema=False)
    app.mount("/docs", StaticFiles(directory=_DOCS, html=True), name="docs")
    if settings.static.is_dir():
        app.mount("/", StaticFiles(directory=settings.static, html=True), name="page")
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=4)
    app.add_middleware(QueryText)
    app.add_middleware(Head)
    app.add_middleware(Guard, settings=settings, telemetry=service.telemetry)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app
