"""An index as a service: an HTTP API, and the page that uses it.

    settings   what may be chosen              service    engine, towers and decoders behind the routes
    app        everything put together         batching   concurrent work becomes one call of a tower
    schemas    shapes of requests, answers     decoding   uploads and files, in processes that may die
    routes_*   one file for each group         keys       items' names in addresses
    compat     other servers' endpoints        items      records, captions, files; the map (projection)
    security   tokens, origins, limits         changes    adding and removing

Importing this imports neither torch nor faiss.
"""

from brivl_search.server.app import create_app
from brivl_search.server.settings import Settings

__all__ = ["Settings", "create_app"]
