"""Errors, and why a search found nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field


class Note(BaseModel):
    """A sentence for people, and the same for programs."""

    message: Annotated[str, Field(description="In English.")]
    code: Annotated[str, Field(description="A stable name for what is said.")]
    details: Annotated[dict[str, Any], Field(description="What the message speaks of, by name.")]


class ErrorBody(Note):
    type: Annotated[str, Field(description="The kind of trouble.")]


class Problem(BaseModel):
    error: ErrorBody
