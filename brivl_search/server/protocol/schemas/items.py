"""Items of the index, its map, and changes to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from brivl_search.server.protocol.schemas.base import (
    Word,
)


class Caption(BaseModel):
    key: str
    field: str | None
    text: str | None
    generated: Annotated[bool, Field(description="Whether a model wrote it.")]


class ItemAnswer(BaseModel):
    key: str
    kind: Literal["image", "text"]
    path: str
    absolute_path: Annotated[str | None, Field(description="On the server's machine; of a caption its picture's.")]
    text: str | None
    width: int | None
    height: int | None
    taken: str | None
    image_key: str | None
    field: str | None
    size: int | None
    modified: str | None
    content_type: str | None
    fields: dict[str, Any]
    captions: list[Caption]


class MapAnswer(BaseModel):
    """Columns of the same length: item n lies at (x[n], y[n])."""

    generation: int
    state: str
    method: str
    total: int
    keys: list[str]
    x: list[float]
    y: list[float]


class AddRequest(BaseModel, extra="forbid"):
    paths: Annotated[list[Word], Field(max_length=1000, description="Files or folders below the index's own.")] = []

    model_config = ConfigDict(json_schema_extra={"examples": [{"paths": ["photos/new.jpg"]}]})


class Skip(BaseModel):
    path: str
    reason: str
    detail: str


class AddAnswer(BaseModel):
    generation: int
    embedded: int
    reused: int
    unchanged: int
    captions: int
    keys: list[str]
    skipped: list[Skip]


class RemoveAnswer(BaseModel):
    generation: int
    images: int
    captions: int
