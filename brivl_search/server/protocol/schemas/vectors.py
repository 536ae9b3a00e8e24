"""Vectors, pairs and classes: what the towers say without the index."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from brivl_search.server.protocol.schemas.base import (
    Base64,
    Key,
    PictureRef,
    Text,
    Unknown,
    Upload,
    Word,
    exactly_one,
)


class TextsRequest(BaseModel, extra="forbid"):
    texts: Annotated[list[Text], Field(min_length=1, max_length=10_000)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["一只狗", "a cat"]}]})


class PicturesRequest(BaseModel, extra="forbid"):
    images: Annotated[list[PictureRef], Field(max_length=1000, description="None: all uploads.")] = []


class EmbedAnswer(BaseModel):
    encoder: str
    fingerprint: str
    dim: int
    vectors: Annotated[list[list[float]], Field(description="Unit length, in the order asked.")]
    unknown_words: Annotated[list[Unknown], Field(description="Of each text; none for pictures.")] = []


class Pair(BaseModel, extra="forbid"):
    """A text, and a picture: one of `key`, `image`, `base64`."""

    text: Text
    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None

    _one = exactly_one("key", "image", "base64", beside="the text")


class MatchRequest(BaseModel, extra="forbid"):
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=10_000)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"pairs": [{"text": "草地上的狗", "image": 0}]}]})


class Matched(BaseModel):
    score: Annotated[float, Field(description="Cosine.")]
    match: Annotated[
        float | None,
        Field(description="Probability; null where the encoder has no calibration or knows no word of the text."),
    ]
    unknown_words: Unknown


class MatchAnswer(BaseModel):
    pairs: list[Matched]
    prior: Annotated[
        float | None, Field(description="The share of all pairs that are right, as every `match` supposes.")
    ]


class ClassifyRequest(BaseModel, extra="forbid"):
    labels: Annotated[
        list[Word | Annotated[list[Word], Field(min_length=1, max_length=32)]],
        Field(min_length=1, max_length=10_000, description="A name, or all names of one class."),
    ]
    templates: Annotated[list[Word], Field(max_length=32, description="Sentences with {} for the label.")] = []
    images: Annotated[list[PictureRef], Field(max_length=1000, description="None: all uploads.")] = []
    k: Annotated[int, Field(ge=1, le=10_000)] = 3

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"labels": ["狗", ["猫", "cat"]], "images": [{"image": 0}], "k": 2}]}
    )


class Guessed(BaseModel):
    label: str
    score: float
    probability: float | None


class Classified(BaseModel):
    labels: list[Guessed]


class ClassifyAnswer(BaseModel):
    results: list[Classified]
    unknown_words: Annotated[dict[str, Unknown], Field(description="Of each label that has some.")]
