"""The server itself: its index, its limits, a session."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Kind(BaseModel):
    rows: int
    kind: str


class EncoderAnswer(BaseModel):
    name: str
    fingerprint: str
    dim: int
    match: Annotated[bool, Field(description="Whether it knows probabilities.")]


class MatcherAnswer(BaseModel):
    name: str
    fingerprint: str
    top: Annotated[int, Field(description="Hits that it re-orders where a search asks for it.")]


class Limits(BaseModel):
    max_k: int
    max_upload_bytes: int
    max_uploads: int
    max_megapixels: float
    max_terms: int
    max_texts: int
    max_text: int


class IndexAnswer(BaseModel):
    generation: int
    identity: Annotated[str, Field(description="Of this index; random, and kept for its life.")]
    state: Annotated[str, Field(description="Equal for equal published states only, of this index and of all others.")]
    directory: str
    encoder: EncoderAnswer
    matcher: Annotated[MatcherAnswer | None, Field(description="What re-orders hits; null: nothing does.")]
    images: Kind
    texts: Kind
    roots: list[str]
    fields: list[str]
    damage: list[str]
    read_only: bool
    uploads: bool
    limits: Limits
    version: str


class Session(BaseModel, extra="forbid"):
    token: Annotated[str, Field(max_length=1000)]


class Status(BaseModel):
    status: Literal["ok"]
