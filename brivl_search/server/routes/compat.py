"""Other servers' endpoints, so that their clients can point here: the former WenLan API, clip-retrieval's back end."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from brivl_search.embedding.batches import numbers
from brivl_search.encoders.base import unknown_words
from brivl_search.search.dedupe import ALIKE
from brivl_search.search.options import SearchOptions
from brivl_search.search.queries import Query as Asked
from brivl_search.search.queries import Target, Term
from brivl_search.server.answers import compat
from brivl_search.server.answers.pictures import check_size, clean, embed_files, from_base64, utf8
from brivl_search.server.answers.search import AnyKind, unit
from brivl_search.server.protocol.openapi import PICTURE, form, gives, takes
from brivl_search.server.protocol.problems import Json, Refusal, too_many
from brivl_search.server.protocol.schemas.compat import KnnRequest, MetadataRequest, WenLanAnswer
from brivl_search.server.security import note_query
from brivl_search.server.workers.service import MOST_ALIKE, Search, Service, Vector, options_for


def router(service: Service) -> APIRouter:
    """The routes, answering from a service."""
    routes = APIRouter(tags=["compatible"])
    settings = service.settings

    @routes.post(
        "/image_query",
        **gives("WenLan API: a picture's vector", WenLanAnswer, 400, 413, 415, 422),
        openapi_extra={"requestBody": {"required": True, "content": form({"image": PICTURE}, required=("image",))}},
    )
    async def image_query(request: Request) -> Json:
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            raise Refusal(415, "send multipart/form-data with a file `image`", "content_type", content_type=kind)
        async with request.form(max_files=1, max_fields=8) as parts:
            image = parts.get("image")
            if not isinstance(image, UploadFile):
                raise Refusal(400, "no file `image` in the form", "no_picture")
            data = await image.read(settings.max_upload_bytes + 1)
        check_size(len(data), settings)
        (vector,) = await embed_files(service, [data])
        return Json(_wenlan("image", vector))

    @routes.get("/text_query", **gives("WenLan API: a text's vector", WenLanAnswer, 400, 413, 422))
    async def text_query(
        request: Request, text: Annotated[str, Query(openapi_examples={"zh": {"value": "一只在草地上的狗"}})]
    ) -> Json:
        note_query(request, text)
        (vector,) = await service.texts.ask([clean(text, settings)])
        return Json({**_wenlan("text", vector), "unknown_words": await _unknown(service, text)})

    @routes.post(
        "/knn-service",
        **takes(
            "clip-retrieval: search",
            KnnRequest,
            "A list of {id, similarity, url, caption, image_path}, and unknown_words where the text has some",
            multipart=False,
        ),
    )
    async def knn_service(request: Request) -> Json:
        wanted = await _read(request, KnnRequest)
        note_query(request, wanted.text)
        if wanted.num_images > settings.max_k:
            message = f"num_images is {wanted.num_images}: this server gives {settings.max_k} hits at most"
            raise Refusal(413, message, "too_many_hits", asked=wanted.num_images, limit=settings.max_k)
        _check_name(service, wanted.indice_name)
        query, vector = await _asked(service, wanted)
        options = options_for(SearchOptions(alike=ALIKE if wanted.deduplicate else None, most_alike=MOST_ALIKE))
        hits, reader = await service.search(Search(query, vector, options))
        base = str(request.base_url)
        rows = await service.slowly(lambda: compat.knn_rows(reader, hits, base))
        if wanted.text and (words := await _unknown(service, wanted.text)):
            rows = [{**row, "unknown_words": words} for row in rows]  # the answer is a bare list
        return Json(rows)

    @routes.post(
        "/metadata",
        **takes("clip-retrieval: what is known of ids", MetadataRequest, "A list of {id, metadata}", multipart=False),
    )
    async def metadata(request: Request) -> Json:
        wanted = await _read(request, MetadataRequest)
        _check_name(service, wanted.indice_name)
        if len(wanted.ids) > settings.max_k:
            raise too_many(len(wanted.ids), "ids", settings.max_k, "too_many_hits")
        reader, base = await service.fresh(), str(request.base_url)
        return Json(await service.slowly(lambda: compat.metadata(reader, wanted.ids, base)))

    @routes.get(
        "/indices-list",
        **gives("clip-retrieval: names of the indexes", list[str]),
        response_class=JSONResponse,
    )
    async def indices_list() -> Json:
        return Json([_name(service)])

    return routes


def _wenlan(kind: str, vector: Vector) -> dict[str, Any]:
    return {"emb_dim": len(vector), "emb_type": kind, "embedding": numbers(vector, "float32")}


async def _unknown(service: Service, text: str) -> list[str]:
    """The words of a text that the encoder does not know."""
    (words,) = await service.slowly(lambda: unknown_words(service.encoder, [text]))
    return words


async def _read(request: Request, model: type[Any]) -> Any:
    """Those clients send JSON under any content type, or none."""
    read: BaseModel = model.model_validate_json(utf8(await request.body(), "the request"))
    return read


def _name(service: Service) -> str:
    return service.reader.directory.resolve().name


def _check_name(service: Service, name: str | None) -> None:
    here = _name(service)
    if name not in (None, "", here):
        message = f"no index {name[:100]!r}: this server has {here!r}"
        raise Refusal(400, message, "no_such_index", name=name[:100], here=here)


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
        message = "image_url: this server fetches nothing; send the picture itself as base64 in `image`"
        raise Refusal(400, message, "nothing_is_fetched")
    raise Refusal(400, "give text, image or embedding_input", "nothing_asked")
