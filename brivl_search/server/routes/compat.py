"""Other servers' endpoints, so that their clients can point here: the former WenLan API, clip-retrieval's back end."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from brivl_search.embedding.batches import numbers
from brivl_search.index import IndexReader, Modality
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.engine import Hit, SearchOptions
from brivl_search.search.queries import Query as Asked
from brivl_search.search.queries import Target, Term
from brivl_search.server.answers.items import captions_of
from brivl_search.server.answers.pictures import check_size, clean, embed_files, from_base64
from brivl_search.server.answers.search import AnyKind, unit
from brivl_search.server.protocol import keys
from brivl_search.server.protocol.problems import Json, Refusal, documented
from brivl_search.server.protocol.schemas import KnnRequest, MetadataRequest, WenLanAnswer
from brivl_search.server.routes.search import body
from brivl_search.server.security import note_query
from brivl_search.server.workers.service import Search, Service, Vector, options_for

_WITH_CAPTIONS = 100  # images of an answer whose captions are looked up


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["compatible"])
    settings = service.settings

    @routes.post(
        "/image_query",
        summary="WenLan API: a picture's vector",
        responses={200: {"model": WenLanAnswer}, **documented(400, 413, 415, 422)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["image"],
                            "properties": {"image": {"type": "string", "format": "binary"}},
                        }
                    }
                },
            }
        },
    )
    async def image_query(request: Request) -> Json:
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            raise Refusal(415, "send multipart/form-data with a file `image`")
        async with request.form(max_files=1, max_fields=8) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise Refusal(400, "no file `image` in the form")
            data = await image.read(settings.max_upload_bytes + 1)
        check_size(len(data), settings)
        (vector,) = await embed_files(service, [data])
        return _wenlan("image", vector)

    @routes.get(
        "/text_query",
        summary="WenLan API: a text's vector",
        responses={200: {"model": WenLanAnswer}, **documented(400, 413, 422)},
    )
    async def text_query(
        request: Request, text: Annotated[str, Query(openapi_examples={"zh": {"value": "一只在草地上的狗"}})]
    ) -> Json:
        note_query(request, text)
        (vector,) = await service.texts.ask([clean(text, settings)])
        return _wenlan("text", vector)

    @routes.post(
        "/knn-service",
        summary="clip-retrieval: search",
        responses={
            200: {"description": "A list of {id, similarity, url, caption, image_path}"},
            **documented(400, 413, 422, 503),
        },
        openapi_extra=body(KnnRequest, multipart=False),
    )
    async def knn_service(request: Request) -> Json:
        wanted = await _read(request, KnnRequest)
        note_query(request, wanted.text)
        if wanted.num_images > settings.max_k:
            raise Refusal(413, f"num_images is {wanted.num_images}: this server gives {settings.max_k} hits at most")
        _check_name(service, wanted.indice_name)
        query, vector = await _asked(service, wanted)
        options = options_for(SearchOptions(alike=ALIKE if wanted.deduplicate else None))
        hits, reader = await service.search(Search(query, vector, options))
        base = str(request.base_url)
        return Json(await asyncio.to_thread(_knn_rows, reader, hits, base))

    @routes.post(
        "/metadata",
        summary="clip-retrieval: what is known of ids",
        responses={200: {"description": "A list of {id, metadata}"}, **documented(400, 413, 422, 503)},
        openapi_extra=body(MetadataRequest, multipart=False),
    )
    async def metadata(request: Request) -> Json:
        wanted = await _read(request, MetadataRequest)
        _check_name(service, wanted.indice_name)
        reader = await service.fresh()
        base = str(request.base_url)
        return Json(await asyncio.to_thread(_metadata, reader, wanted.ids, base))

    @routes.get(
        "/indices-list",
        summary="clip-retrieval: names of the indexes",
        responses={200: {"model": list[str]}, **documented()},
        response_class=JSONResponse,
    )
    async def indices_list() -> Json:
        return Json([_name(service)])

    return routes


def _wenlan(kind: str, vector: Vector) -> Json:
    return Json({"emb_dim": len(vector), "emb_type": kind, "embedding": numbers(vector, "float32")})


async def _read(request: Request, model: type[Any]) -> Any:
    """Those clients send JSON under any content type, or none."""
    read: BaseModel = model.model_validate_json(await request.body())
    return read


def _name(service: Service) -> str:
    return service.reader.directory.resolve().name


def _check_name(service: Service, name: str | None) -> None:
    if name not in (None, "", _name(service)):
        raise Refusal(400, f"no index {name[:100]!r}: this server has {_name(service)!r}")


async def _asked(service: Service, wanted: KnnRequest) -> tuple[Asked, Vector]:
    target: Target = wanted.modality
    k = wanted.num_images
    if wanted.text:
        text = clean(wanted.text, service.settings)
        (vector,) = await service.texts.ask([text])
        return Asked((Term(text),), k, target), vector
    if wanted.image:
        data = from_base64(wanted.image, service.settings)
        (vector,) = await embed_files(service, [data])
        return Asked((Term(b"", "image"),), k, target), vector
    if wanted.embedding_input:
        vector = unit(wanted.embedding_input, service.encoder.dim)
        return AnyKind((Term(b"", "image"),), k, target), vector
    if wanted.image_url:
        raise Refusal(400, "image_url: this server fetches nothing; send the picture itself as base64 in `image`")
    raise Refusal(400, "give text, image or embedding_input")


def _knn_rows(reader: IndexReader, hits: list[Hit], base: str) -> list[dict[str, Any]]:
    rows = []
    for hit in hits:
        place = reader.find(hit.kind, hit.key)
        if place is None:
            continue
        known = _facts(reader, hit.kind, hit.key, hit.record, base, captions=len(hits) <= _WITH_CAPTIONS)
        rows.append({"id": _number(reader, hit.kind, *place), "similarity": round(hit.score, 6), **known})
    return rows


def _metadata(reader: IndexReader, ids: list[int], base: str) -> list[dict[str, Any]]:
    """Nothing of ids that no row has any more: an id is a place in the index, and places change with generations."""
    rows = []
    for number in ids:
        found = _place(reader, number)
        if found is not None:
            modality, shard, row = found
            entry = reader.entry(modality, shard, row)
            rows.append({"id": number, "metadata": _facts(reader, modality, entry["key"], entry["record"], base)})
    return rows


def _facts(
    reader: IndexReader, modality: Modality, key: str, record: dict[str, Any], base: str, *, captions: bool = True
) -> dict[str, Any]:
    image = record.get("path" if modality == "image" else "image")
    text = record.get("text")
    if modality == "image" and captions and isinstance(image, str):
        known = captions_of(reader, image)
        text = known[0][1].get("text") if known else None
    picture = keys.encode("image", key) if modality == "image" else keys.encode("image", image or "")
    url = f"{base}v1/items/{picture}/image"
    return {"url": url, "image_path": image, "caption": text, "key": keys.encode(modality, key)}


def _number(reader: IndexReader, modality: Modality, shard: int, row: int) -> int:
    """A row as a whole number below 2^53: number of the shard, row, modality."""
    return (reader.info.of(modality).shards[shard].seq << 32 | row) << 1 | (modality == "text")


def _place(reader: IndexReader, number: int) -> tuple[Modality, int, int] | None:
    modality: Modality = "text" if number & 1 else "image"
    seq, row = number >> 33, (number >> 1) & 0xFFFFFFFF
    for shard, info in enumerate(reader.info.of(modality).shards):
        if info.seq == seq and row < info.rows:
            key = reader.entry(modality, shard, row)["key"]
            return (modality, shard, row) if reader.find(modality, key) == (shard, row) else None
    return None
