"""How uvicorn runs the application: its own logs, forwarded headers and limits are ours to decide."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from brivl_search.server.connections import Connections, Patience, most_connections, watched
from brivl_search.server.settings import Settings


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`, beside the application."""
    patience = Patience(
        connections=most_connections(settings.max_connections),
        head_s=settings.head_timeout_s,
        answer_s=settings.answer_timeout_s,
    )
    return {
        "http": watched(AutoHTTPProtocol, Connections(patience)),
        "ws": "none",
        # uvicorn would believe X-Forwarded-For from this machine; `callers` believes the proxies that are named.
        "proxy_headers": False,
        "log_config": None,
        "access_log": False,  # theirs shows query strings
        "server_header": False,
        "timeout_graceful_shutdown": 10,
        "timeout_keep_alive": 5,
    }
