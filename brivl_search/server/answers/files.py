"""Pictures of the index as clients see them: thumbnails and the files themselves.

What is no longer what was indexed, and whatever else lies on the disk, is never sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from email.utils import quote
from urllib.parse import quote as percent

from starlette.requests import Request
from starlette.responses import Response

from brivl_search.corpus.decode_single import ChangedError, read_indexed
from brivl_search.errors import ImageError
from brivl_search.server.answers.items import Item, find_picture
from brivl_search.server.answers.kinds import media_type
from brivl_search.server.protocol.problems import Refusal
from brivl_search.server.workers.service import Service

_CACHE_BYTES = 16 << 20
_GONE = ("file vanished", "permission denied", "not a regular file", "read error")


class Files:
    """Serves them, and remembers thumbnails."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._reading = asyncio.Semaphore(4)  # whole files are held in memory

    async def thumbnail(self, name: str, side: int, request: Request) -> Response:
        """A JPEG. Raises Refusal."""
        item = await find_picture(self._service, name)
        headers = _headers(f"{item.sha256}-{side}")
        if item.sha256 and request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, 304, headers)
        return Response(await self._small(item, side), 200, headers, "image/jpeg")

    async def _small(self, item: Item, side: int) -> bytes:
        kept = (item.sha256 or "", side)
        if kept in self._kept:
            self._kept.move_to_end(kept)
            return self._kept[kept]
        assert item.image is not None
        try:
            data = await self._service.decoders.thumbnail(
                item.image, side, item.sha256, self._service.settings.max_file_bytes
            )
        except ImageError as error:
            raise _refusal(error) from None
        if item.sha256 and kept not in self._kept:
            self._kept[kept] = data
            self._bytes += len(data)
            while self._bytes > _CACHE_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return data

    async def image(self, name: str, request: Request) -> Response:
        """The file. Raises Refusal."""
        item = await find_picture(self._service, name)
        assert item.image is not None
        headers = _headers(str(item.sha256))
        if item.sha256 and request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, 304, headers)
        try:
            async with self._reading:
                limit = self._service.settings.max_file_bytes
                data = await asyncio.to_thread(read_indexed, item.image, item.sha256, limit)
        except ImageError as error:
            raise _refusal(error) from None
        base = item.image.rpartition("/")[2].encode("utf-8", "replace").decode("utf-8")
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{percent(base, safe='')}"
        return Response(data, 200, headers, media_type(data))


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": f'"{quote(tag)}"', "Cache-Control": "private, max-age=3600"}


def _refusal(error: ImageError) -> Refusal:
    if isinstance(error, ChangedError):
        return Refusal(409, str(error), "file_changed", **error.details)
    message = f"the file cannot be shown: {error}"
    if error.reason in _GONE:
        return Refusal(404, message, "file_gone", **error.details)
    return Refusal(409, message, "file_unreadable", **error.details)
