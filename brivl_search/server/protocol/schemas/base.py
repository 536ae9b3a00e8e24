"""What several requests share: words, keys, pictures. What a server may choose is checked later."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, model_validator

M = TypeVar("M", bound=BaseModel)

Text = Annotated[str, Field(max_length=100_000)]
Word = Annotated[str, Field(max_length=1000)]
Key = Annotated[str, Field(max_length=1000, description="An item of the index, as hits name it.")]
Base64 = Annotated[str, Field(description="Content of an image file in base64.")]
Upload = Annotated[int, Field(ge=0, le=1000, description="Number of an `image` part of the multipart request, from 0.")]
Unknown = Annotated[
    list[str], Field(description="Words that the encoder does not know, as it reads them. If it knows none: no match.")
]
Words = Annotated[list[Word], Field(max_length=64)]
Share = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


def exactly_one(*names: str, beside: str = "") -> Any:
    """A validator for a model of which one field of these must be given, and no other of them."""
    said = f"give exactly one of {', '.join(names)}" + (f" beside {beside}" if beside else "")

    def check(model: M) -> M:
        if sum(getattr(model, name) is not None for name in names) != 1:
            raise ValueError(said)
        return model

    return model_validator(mode="after")(check)


class PictureRef(BaseModel, extra="forbid"):
    """A picture: one of `key`, `image`, `base64`. Nothing is fetched by URL."""

    key: Key | None = None
    image: Upload | None = None
    base64: Base64 | None = None

    _one = exactly_one("key", "image", "base64")
