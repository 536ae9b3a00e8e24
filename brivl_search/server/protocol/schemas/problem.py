"""Errors."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorBody(BaseModel):
    type: str
    message: str


class Problem(BaseModel):
    error: ErrorBody
