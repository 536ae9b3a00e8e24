"""What a request brings: JSON, or multipart with pictures; and pictures, however they are named, become vectors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.requests import Request

from brivl_search.corpus.encodings import decode_file, guess
from brivl_search.corpus.text import take_text
from brivl_search.server.answers.items import find_item
from brivl_search.server.protocol.problems import Refusal, too_many
from brivl_search.server.settings import Settings
from brivl_search.server.workers.service import NOBODY, Service, Vector

M = TypeVar("M", bound=BaseModel)


class Ref(Protocol):
    """A picture by one of three names."""

    @property
    def key(self) -> str | None: ...
    @property
    def image(self) -> int | None: ...
    @property
    def base64(self) -> str | None: ...


async def read_request(request: Request, model: type[M], settings: Settings) -> tuple[M, list[bytes]]:
    """The request and its uploads.

    Raises:
        Refusal: neither JSON nor multipart, or uploads that are too many or too large.
        ValidationError: not of the model's shape.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "application/json":
        return model.model_validate_json(utf8(await request.body(), "the request")), []
    if kind != "multipart/form-data":
        raise Refusal(
            415,
            f"content type {kind}: send application/json, or multipart/form-data with `request` and `image`",
            "content_type",
            content_type=kind,
        )
    body, uploads = "{}", []
    async with request.form(max_files=settings.max_uploads, max_fields=16, max_part_size=4 << 20) as form:
        for name, value in form.multi_items():
            if name == "request":
                body = _part(value) if isinstance(value, str) else utf8(await value.read(), "`request`")
            elif name == "image" and isinstance(value, UploadFile):
                data = await value.read(settings.max_upload_bytes + 1)
                check_size(len(data), settings)
                uploads.append(data)
            else:
                raise Refusal(
                    422,
                    f"part {name[:40]!r}: the parts are `request`, JSON, and `image`, files",
                    "unknown_part",
                    part=name[:40],
                )
    return model.model_validate_json(body), uploads


def utf8(raw: bytes, where: str) -> str:
    """The text of a request's body or part. Raises UsageError: it is not UTF-8."""
    return decode_file(raw, where)


def _part(text: str) -> str:
    """The text of a form's part, which arrives decoded: as Latin-1 where it was not UTF-8. Raises UsageError."""
    if not text.isascii() and all(char <= "\xff" for char in text):
        raw = text.encode("latin-1")
        if (found := guess(raw)) is not None and found.sure and found.codec != "utf-8":
            return utf8(raw, "`request`")
    return text


def check_size(size: int, settings: Settings) -> None:
    limit = settings.max_upload_bytes
    if size > limit:
        message = f"the picture is larger than {limit:,} bytes, the limit of this server"
        raise Refusal(413, message, "upload_too_large", limit=limit)


def from_base64(text: str, settings: Settings) -> bytes:
    """The content of a file. Raises Refusal."""
    check_size(len(text) * 3 // 4 - 2, settings)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "base64: this is none", "not_base64") from None


def clean(text: str, settings: Settings, where: str = "text") -> str:
    """A text as it is shown and searched. Raises Refusal: it is too long; UsageError: it is empty, or no text."""
    if len(text) > settings.max_text:
        message = f"{where}: more than {settings.max_text:,} characters, the limit of this server"
        raise Refusal(413, message, "text_too_long", where=where, limit=settings.max_text)
    return take_text(text, where)


async def picture_vectors(service: Service, refs: Sequence[Ref], uploads: Sequence[bytes]) -> list[Vector]:
    """float32 (dim,) of each picture; those of the index are known, the others are decoded and embedded together.

    Raises:
        Refusal: no such key or upload, or too many pictures.
        ImageError: a picture cannot be read.
    """
    if len(refs) > service.settings.max_uploads:
        raise too_many(len(refs), "pictures", service.settings.max_uploads, "too_many_pictures")
    known: dict[int, Vector] = {}
    files: dict[int, bytes] = {}
    for at, ref in enumerate(refs):
        if ref.key is not None:
            known[at] = await stored_vector(service, ref.key)
        elif ref.base64 is not None:
            files[at] = from_base64(ref.base64, service.settings)
        else:
            assert ref.image is not None
            if ref.image >= len(uploads):
                message = f"image {ref.image}: the request holds {len(uploads)} `image` parts, counted from 0"
                raise Refusal(422, message, "no_such_upload", image=ref.image, uploads=len(uploads))
            files[at] = uploads[ref.image]
    known |= dict(zip(files, await embed_files(service, list(files.values())), strict=True))
    return [known[at] for at in range(len(refs))]


async def embed_files(service: Service, files: Sequence[bytes]) -> list[Vector]:
    """float32 (dim,) of each file's content. Raises ImageError."""
    spec = service.encoder.pixels
    different = {data: ((await service.decoders.pixels(data, spec)).pixels, NOBODY) for data in dict.fromkeys(files)}
    vectors = dict(zip(different, await service.pictures.ask(list(different.values())), strict=True))
    return [vectors[data] for data in files]


async def stored_vector(service: Service, key: str) -> Vector:
    """The vector that the index keeps of an item, float32 (dim,), unit length. Raises Refusal."""
    item = await find_item(service, key)
    vector = item.vector.astype(np.float32)
    unit: Vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit
