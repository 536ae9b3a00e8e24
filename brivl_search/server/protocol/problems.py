"""Errors as answers: one shape for all of them, and no traceback for a client."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from brivl_search.errors import (
    BrivlSearchError,
    CorpusError,
    DependencyError,
    EncoderError,
    ImageError,
    IndexIncompatibleError,
    IndexMissingError,
    UsageError,
    system_error,
)
from brivl_search.server.workers.batching import Overloaded

_TYPES = {
    400: "usage",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "not_found",
    409: "conflict",
    413: "too_large",
    415: "usage",
    422: "invalid",
    429: "rate_limited",
    503: "index",
}
_OPTION = re.compile(r"--([a-z][a-z-]*)")


class Refusal(Exception):
    """A request that is answered with a status and a line."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


def to_json(value: Any) -> bytes:
    """UTF-8; a name that is not UTF-8 is kept by JSON's own escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def problem(status: int, message: str, headers: dict[str, str] | None = None, *, kind: str = "") -> Json:
    """The answer for an error."""
    body = {"error": {"type": kind or _TYPES.get(status, "internal"), "message": " ".join(message.split())}}
    return Json(body, status, headers)


def explain(error: Exception) -> Json | None:
    """The answer to one of our errors; None for any other, which is a defect."""
    if isinstance(error, Refusal):
        return problem(error.status, str(error), error.headers)
    if isinstance(error, Overloaded):
        return problem(
            503, "too much is waiting to be answered: try again later", {"Retry-After": "1"}, kind="overloaded"
        )
    if isinstance(error, ValidationError):
        return problem(422, _first(error.errors()))
    if isinstance(error, ImageError):
        return problem(413 if error.reason == "too large" else 400, f"the picture cannot be used: {error}")
    if isinstance(error, UsageError | CorpusError):
        # The messages name options of the command line; fields of requests have the same names.
        return problem(400, _OPTION.sub(lambda found: f"`{found[1].replace('-', '_')}`", str(error)))
    if isinstance(error, IndexMissingError | IndexIncompatibleError | EncoderError | DependencyError):
        return problem(503, str(error))
    if isinstance(error, BrivlSearchError):
        return problem(409 if "another build" in str(error) else 503, str(error))
    if known := system_error(error):
        return problem(503, str(known))
    return None


def _first(errors: Any) -> str:
    """Where and what, of the first thing that is wrong."""
    error = errors[0]
    where = ".".join(str(part) for part in error["loc"] if part != "body")
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def install(app: FastAPI) -> None:
    """Answer with `problem` whatever goes wrong in a route."""

    async def known(request: Request, error: Exception) -> Response:
        answer = explain(error)
        if answer is None:
            raise error
        return answer

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, _first(error.errors()))

    for kind in (Refusal, Overloaded, ValidationError, BrivlSearchError, OSError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
