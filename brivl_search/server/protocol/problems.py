"""Errors as answers: one shape for all of them, and no traceback for a client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from brivl_search.errors import BrivlSearchError, CorpusError, ImageError, IndexBusyError, UsageError, system_error
from brivl_search.server.protocol.codes import TYPES
from brivl_search.server.workers.batching import Overloaded


class Refusal(Exception):
    """A request that is answered with a status and a line; code and details as of `codes`."""

    def __init__(
        self, status: int, message: str, code: str, headers: dict[str, str] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status, self.headers, self.code, self.details = status, headers, code, details


def too_many(asked: int, what: str, limit: int, code: str) -> Refusal:
    """A request for more of something than this server takes."""
    return Refusal(413, f"{asked} {what}: this server takes {limit} in a request", code, asked=asked, limit=limit)


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


def problem(
    status: int,
    message: str,
    headers: dict[str, str] | None = None,
    *,
    kind: str = "",
    code: str = "",
    details: Mapping[str, Any] | None = None,
) -> Json:
    """The answer for an error; its type is that of the status, and its code the type, unless they are given."""
    kind = kind or TYPES.get(status, "internal")
    said = {"type": kind, "message": " ".join(message.split()), "code": code or kind, "details": details or {}}
    return Json({"error": said}, status, headers)


def explain(error: Exception) -> Json | None:
    """The answer to one of our errors; None for any other, which is a defect."""
    if isinstance(error, Refusal):
        return problem(error.status, str(error), error.headers, code=error.code, details=error.details)
    if isinstance(error, Overloaded):
        return problem(
            503, "too much is waiting to be answered: try again later", {"Retry-After": "1"}, kind="overloaded"
        )
    if isinstance(error, ValidationError):
        return _invalid(error.errors())
    if isinstance(error, ImageError):
        return _told(413 if error.reason == "too large" else 400, error, f"the picture cannot be used: {error}")
    if isinstance(error, UsageError | CorpusError):
        return _told(400, error)
    if isinstance(error, IndexBusyError):
        return _told(409, error)
    if isinstance(error, BrivlSearchError):
        return _told(503, error)
    if known := system_error(error):
        return _told(503, known)
    return None


def _told(status: int, error: BrivlSearchError, message: str = "") -> Json:
    return problem(status, message or str(error), code=error.code, details=error.details)


def _invalid(errors: Any) -> Json:
    """Where and what, of the first thing that is wrong."""
    error = errors[0]
    where, why = ".".join(str(part) for part in error["loc"] if part != "body"), str(error["msg"])
    return problem(422, f"{where}: {why}" if where else why, details={"where": where, "why": why})


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
        return _invalid(error.errors())

    for kind in (Refusal, Overloaded, ValidationError, BrivlSearchError, OSError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
