"""Searching: terms, filters, hits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from brivl_search.server.protocol.schemas.base import (
    Base64,
    Cosine,
    Key,
    Share,
    Text,
    Unknown,
    Upload,
    Word,
    Words,
    exactly_one,
)
from brivl_search.server.protocol.schemas.problem import Note


class SearchTerm(BaseModel, extra="forbid"):
    """A part of what is looked for: exactly one of `text`, `key`, `image`, `base64`, `vector`."""

    text: Text | None = None
    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None
    vector: Annotated[list[float], Field(max_length=65_536, description="A vector of the encoder.")] | None = None
    weight: Annotated[Share, Field(description="Below 0 to stay away from it.")] = 1.0

    _one = exactly_one("text", "key", "image", "base64", "vector")


Moment = Annotated[str, Field(max_length=40)]


class SearchFilters(BaseModel, extra="forbid"):
    """What hits must satisfy, exactly; of several values in a list, one."""

    under: Annotated[Words, Field(description="Folders.")] = []
    glob: Annotated[Words, Field(description="Patterns for names; with a slash, for whole paths.")] = []
    after: Annotated[
        Moment | None, Field(description="2024, 2024-05, 2024-05-03, ...: EXIF time, else the file's.")
    ] = None
    before: Moment | None = None
    min_size: Annotated[str | None, Field(max_length=20, description="Pixels, such as 800x600.")] = None
    where: Annotated[dict[Word, Word | Words], Field(max_length=32, description="Fields of the caption file.")] = {}


class SearchRequest(BaseModel, extra="forbid"):
    """A weighted sum of texts and pictures, and how hits are chosen."""

    text: Annotated[Text | None, Field(description="Short for a first term of weight 1.")] = None
    terms: Annotated[list[SearchTerm], Field(max_length=1000)] = []
    target: Annotated[
        Literal["auto", "images", "texts"],
        Field(description="auto: captions for a single picture where the index has any, else images."),
    ] = "auto"
    k: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    offset: Annotated[int, Field(ge=0, le=1_000_000, description="Hits to pass over: for the next page.")] = 0
    filters: SearchFilters = SearchFilters()
    dedupe: Annotated[
        bool | Annotated[float, Field(ge=0.5, le=1)],
        Field(description="Fold near-identical hits into the best; a number: from this cosine on, 0.5 at least."),
    ] = False
    min_score: Cosine | None = None
    min_match: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    exact: Annotated[bool, Field(description="Compare with every row.")] = False
    rerank: Annotated[
        bool,
        Field(
            description="Let the server's matcher re-order the first hits, where it has one: for one text on images, "
            "or one picture on captions."
        ),
    ] = False
    count: Annotated[bool, Field(description="Also say about how many fit; needs a `match`.")] = False

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "一只在草地上的狗", "k": 5},
                {
                    "text": "雪地里的狗",
                    "terms": [{"text": "a man", "weight": -0.5}],
                    "filters": {"after": "2024-05", "min_size": "800x600"},
                    "dedupe": True,
                },
            ]
        },
    )


class SearchHit(BaseModel):
    rank: int
    key: str
    kind: Literal["image", "text"]
    path: str
    text: str | None
    score: Annotated[float, Field(description="Cosine.")]
    match: Annotated[
        float | None,
        Field(description="Chance that this hit is right; null for sums, and where the encoder knows none."),
    ]
    rerank: Annotated[
        float | None, Field(description="What a matcher ordered the hit by; null where none did, or could.")
    ]
    width: int | None
    height: int | None
    taken: str | None
    image_key: Annotated[str | None, Field(description="Key of the picture: an image's own, of a caption its image's.")]
    field: str | None
    generated: Annotated[bool, Field(description="Whether a model wrote the caption.")]
    duplicates: Annotated[int, Field(description="Hits that were folded into this one, as far as they are listed.")]
    duplicate_keys: Annotated[list[str], Field(description="The best of them, 100 at most.")]


class Counted(BaseModel):
    """About how many fit: the sum of the chances."""

    fit: float
    rows: Annotated[int, Field(description="That were searched: all, or those that the filters let through.")]
    looked_at: Annotated[int, Field(description="The best of them, one by one; a sample stands for the rest.")]


class Reranked(BaseModel):
    """Who re-ordered the first hits."""

    name: str
    fingerprint: str
    top: Annotated[int, Field(description="So many, or as many as there were.")]


class SearchAnswer(BaseModel):
    generation: int
    state: Annotated[str, Field(description="Equal for equal published states only, of this index and of all others.")]
    target: Literal["images", "texts"]
    took_ms: float
    offset: int
    more: Annotated[bool, Field(description="Asking with offset + k may give more.")]
    hits: list[SearchHit]
    fits: Annotated[
        bool | None, Field(description="Whether a hit has a match of 0.3 at least; null where no match is known.")
    ]
    count: Annotated[Counted | None, Field(description="Where it was asked for.")]
    reranked: Annotated[Reranked | None, Field(description="Where it was asked for.")]
    unknown_words: Unknown
    note: Annotated[Note | None, Field(description="Why there are no hits, where the filters let nothing through.")]
