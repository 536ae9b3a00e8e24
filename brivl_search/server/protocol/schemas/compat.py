"""Endpoints of other servers: the former WenLan API, clip-retrieval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from brivl_search.server.protocol.schemas.base import (
    Base64,
    Text,
    Unknown,
)


class WenLanAnswer(BaseModel):
    emb_dim: int
    emb_type: Literal["image", "text"]
    embedding: list[float]
    unknown_words: Unknown = []


class KnnRequest(BaseModel):
    """What clip-retrieval's clients send; `image_url` is refused, and what filters by content is ignored."""

    text: Text | None = None
    image: Base64 | None = None
    image_url: str | None = None
    embedding_input: Annotated[list[float], Field(max_length=65_536)] | None = None
    modality: Literal["image", "text"] = "image"
    num_images: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    num_result_ids: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    indice_name: str | None = None
    deduplicate: bool = False

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "a dog", "modality": "image", "num_images": 5, "indice_name": "default"}]
        }
    )


class MetadataRequest(BaseModel):
    ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(max_length=10_000)]
    indice_name: str | None = None
