"""Shapes of requests and answers, as the OpenAPI document shows them. What a server may choose is checked later."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(max_length=100_000)]
Word = Annotated[str, Field(max_length=1000)]
Key = Annotated[str, Field(max_length=1000, description="An item of the index, as hits name it.")]
Base64 = Annotated[str, Field(description="Content of an image file in base64.")]
Upload = Annotated[int, Field(ge=0, le=1000, description="Number of an `image` part of the multipart request, from 0.")]
Share = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PictureRef(Strict):
    """A picture: one of `key`, `image`, `base64`. Nothing is fetched by URL."""

    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None

    @model_validator(mode="after")
    def _one(self) -> PictureRef:
        if sum(value is not None for value in (self.key, self.image, self.base64)) != 1:
            raise ValueError("give exactly one of key, image, base64")
        return self


class SearchTerm(Strict):
    """A part of what is looked for: exactly one of `text`, `key`, `image`, `base64`, `vector`."""

    text: Text | None = None
    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None
    vector: Annotated[list[float], Field(max_length=65_536, description="A vector of the encoder.")] | None = None
    weight: Annotated[Share, Field(description="Below 0 to stay away from it.")] = 1.0

    @model_validator(mode="after")
    def _one(self) -> SearchTerm:
        if sum(v is not None for v in (self.text, self.key, self.image, self.base64, self.vector)) != 1:
            raise ValueError("give exactly one of text, key, image, base64, vector")
        return self


Words = Annotated[list[Word], Field(max_length=64)]
Moment = Annotated[str, Field(max_length=40)]


class SearchFilters(Strict):
    """What hits must satisfy, exactly; of several values in a list, one."""

    under: Annotated[Words, Field(description="Folders.")] = []
    glob: Annotated[Words, Field(description="Patterns for names; with a slash, for whole paths.")] = []
    after: Annotated[
        Moment | None, Field(description="2024, 2024-05, 2024-05-03, ...: EXIF time, else the file's.")
    ] = None
    before: Moment | None = None
    min_size: Annotated[str | None, Field(max_length=20, description="Pixels, such as 800x600.")] = None
    where: Annotated[dict[Word, Word | Words], Field(max_length=32, description="Fields of the caption file.")] = {}


class SearchRequest(Strict):
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
        bool | Annotated[float, Field(gt=0, le=1)],
        Field(description="Fold near-identical hits into the best; a number: from this cosine on."),
    ] = False
    min_score: Cosine | None = None
    min_match: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    exact: Annotated[bool, Field(description="Compare with every row.")] = False

    model_config = ConfigDict(
        extra="forbid",
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
    match: Annotated[float | None, Field(description="Probability that text and picture belong together.")]
    width: int | None
    height: int | None
    taken: str | None
    image_key: Annotated[str | None, Field(description="Key of the picture: an image's own, of a caption its image's.")]
    field: str | None
    duplicates: int
    duplicate_keys: list[str]


class SearchAnswer(BaseModel):
    generation: int
    target: Literal["images", "texts"]
    took_ms: float
    offset: int
    more: Annotated[bool, Field(description="Asking with offset + k may give more.")]
    hits: list[SearchHit]


class Caption(BaseModel):
    key: str
    field: str | None
    text: str | None


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


class TextsRequest(Strict):
    texts: Annotated[list[Text], Field(min_length=1, max_length=10_000)]

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": ["一只狗", "a cat"]}]})


class PicturesRequest(Strict):
    images: Annotated[list[PictureRef], Field(max_length=1000, description="None: all uploads.")] = []


class EmbedAnswer(BaseModel):
    encoder: str
    fingerprint: str
    dim: int
    vectors: Annotated[list[list[float]], Field(description="Unit length, in the order asked.")]


class Pair(Strict):
    """A text, and a picture: one of `key`, `image`, `base64`."""

    text: Text
    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None

    @model_validator(mode="after")
    def _one(self) -> Pair:
        if sum(value is not None for value in (self.key, self.image, self.base64)) != 1:
            raise ValueError("give exactly one of key, image, base64 beside the text")
        return self


class MatchRequest(Strict):
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=10_000)]

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"pairs": [{"text": "草地上的狗", "image": 0}]}]}
    )


class Matched(BaseModel):
    score: Annotated[float, Field(description="Cosine.")]
    match: Annotated[float | None, Field(description="Probability; null where the encoder has no calibration.")]


class MatchAnswer(BaseModel):
    pairs: list[Matched]


class ClassifyRequest(Strict):
    labels: Annotated[
        list[Word | Annotated[list[Word], Field(min_length=1, max_length=32)]],
        Field(min_length=1, max_length=10_000, description="A name, or all names of one class."),
    ]
    templates: Annotated[list[Word], Field(max_length=32, description="Sentences with {} for the label.")] = []
    images: Annotated[list[PictureRef], Field(max_length=1000, description="None: all uploads.")] = []
    k: Annotated[int, Field(ge=1, le=10_000)] = 3

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"labels": ["狗", ["猫", "cat"]], "images": [{"image": 0}], "k": 2}]},
    )


class Guessed(BaseModel):
    label: str
    score: float
    probability: float | None


class Classified(BaseModel):
    labels: list[Guessed]


class ClassifyAnswer(BaseModel):
    results: list[Classified]


class Kind(BaseModel):
    rows: int
    kind: str


class EncoderAnswer(BaseModel):
    name: str
    fingerprint: str
    dim: int
    match: Annotated[bool, Field(description="Whether it knows probabilities.")]


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
    directory: str
    encoder: EncoderAnswer
    images: Kind
    texts: Kind
    roots: list[str]
    fields: list[str]
    damage: list[str]
    read_only: bool
    uploads: bool
    limits: Limits
    version: str


class MapAnswer(BaseModel):
    """Columns of the same length: item n lies at (x[n], y[n])."""

    generation: int
    method: str
    total: int
    keys: list[str]
    x: list[float]
    y: list[float]


class AddRequest(Strict):
    paths: Annotated[list[Word], Field(max_length=1000, description="Files or folders below the index's own.")] = []

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"paths": ["photos/new.jpg"]}]})


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


class Session(Strict):
    token: Annotated[str, Field(max_length=1000)]


class Status(BaseModel):
    status: Literal["ok"]


class ErrorBody(BaseModel):
    type: str
    message: str


class Problem(BaseModel):
    error: ErrorBody


class WenLanAnswer(BaseModel):
    emb_dim: int
    emb_type: Literal["image", "text"]
    embedding: list[float]


class KnnRequest(BaseModel):
    """What clip-retrieval's clients send; `image_url` is refused, and what filters by content is ignored."""

    text: Text | None = None
    image: Base64 | None = None
    image_url: str | None = None
    embedding_input: list[float] | None = None
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
