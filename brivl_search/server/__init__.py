"""An index as a service: an HTTP API, and the page that uses it.

    app         the application                settings    what may be chosen
    security    tokens, origins, rates         telemetry   numbers for Prometheus
    callers     who calls, also by a proxy     bodies      sizes and deadlines of what requests bring
    listening   how uvicorn runs it            connections deadlines of connections, and a cap
    routes/     addresses, in groups: search, vectors, items, status; compat: other servers' endpoints
    answers/    what a route answers with, in modules of the same names; pictures, files, kinds, map, changes,
                uploads (on disk)
    protocol/   schemas (shapes of requests and answers), openapi, problems (errors), keys (items' names in addresses)
    workers/    service (engine, towers, decoders behind the routes), batching (concurrent work becomes one call of a
                tower), fair (threads for what is slow), decoding (pictures, in processes that may die)

Importing this imports neither torch nor faiss.
"""

from brivl_search.server.app import create_app
from brivl_search.server.settings import Settings

__all__ = ["Settings", "create_app"]
