"""Items of the index by their key: records, captions, vectors, and their files."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.display import as_given
from brivl_search.index import IndexReader, Modality, catalog
from brivl_search.index.store import scan_txn
from brivl_search.search.hits import pixels_of, text_of
from brivl_search.server.protocol import keys
from brivl_search.server.protocol.problems import Refusal
from brivl_search.server.workers.service import Service

_SHA256 = re.compile("[0-9a-f]{64}")
_MOST_CAPTIONS = 200
_LONG_PATH = 300  # bytes; beyond, a caption's key may be one of those that the catalog hashes


@dataclass(frozen=True, eq=False)
class Item:
    """A live row.

    Attributes:
        modality: image or text.
        key: of the catalog.
        record: all that the index keeps of it.
        sha256: of the file's content, where that was ever seen.
        vector: float16 (dim,).
        size, mtime_ns: of the file; 0 where not known.
        place: shard and row in the reader that was asked.
    """

    modality: Modality
    key: str
    record: dict[str, Any]
    sha256: str | None
    vector: NDArray[np.float16]
    size: int
    mtime_ns: int
    place: tuple[int, int]

    @property
    def image(self) -> str | None:
        """Path of the picture: an image's own, of a caption its image's."""
        path = self.record.get("path" if self.modality == "image" else "image")
        return path if isinstance(path, str) else None


async def find_item(service: Service, name: str) -> Item:
    """The item that a client calls so. Raises Refusal if the index holds none."""
    reader = await service.fresh()
    item = await asyncio.to_thread(look_up, reader, name)
    if item is None:
        raise Refusal(404, "no item of the index has this key", "no_such_item")
    return item


async def find_picture(service: Service, name: str) -> Item:
    """The image that a client calls so, or whose caption it names. Raises Refusal."""
    item = await find_item(service, name)
    if item.modality == "image":
        return item
    if item.image is None:
        raise Refusal(404, "this caption has no picture", "no_picture_of_caption")
    return await find_item(service, keys.encode("image", item.image))


def look_up(reader: IndexReader, name: str) -> Item | None:
    """The item of an encoded key; None if the index holds none."""
    found = keys.decode(name)
    if found is None:
        return None
    modality, key = found
    with catalog.reading(reader.directory) as (txn, _):
        if isinstance(key, bytes):
            lmdb_key = catalog.item_prefix(modality) + b"~" + key
            value = txn.get(lmdb_key)
            if value is None:
                return None
            key = catalog.Entry.unpack(lmdb_key, value).key
        entry = catalog.get_entry(txn, modality, key)
    place = reader.find(modality, key)
    if place is None:
        return None
    body = reader.entry(modality, *place)
    size, mtime_ns = (entry.size, entry.mtime_ns) if entry is not None else (0, 0)
    sha256 = body["content"] if _SHA256.fullmatch(body["content"]) else None
    return Item(modality, key, body["record"], sha256, reader.vector(modality, *place), size, mtime_ns, place)


def captions_of(reader: IndexReader, image: str) -> list[tuple[str, dict[str, Any]]]:
    """(key, record) of the captions of an image, by field and text."""
    found = []
    for key in _caption_keys(reader, image):
        place = reader.find("text", key)
        if place is not None:
            found.append((key, reader.record("text", *place)))
    return sorted(found, key=lambda one: (str(one[1].get("field")), str(one[1].get("text"))))


def _caption_keys(reader: IndexReader, image: str) -> list[str]:
    prefix = image + "\0"
    raw = prefix.encode("utf-8", "surrogateescape")
    head = catalog.item_prefix("text")
    starts = [head + b"=" + raw[:480]] + ([head + b"~"] if len(raw) > _LONG_PATH else [])

    def scan() -> Iterator[str]:
        with catalog.reading(reader.directory) as (txn, _):
            for start in starts:
                for lmdb_key, value in scan_txn(txn, start):
                    key = catalog.Entry.unpack(lmdb_key, value).key
                    if key.startswith(prefix):
                        yield key

    return [key for key, _ in zip(scan(), range(_MOST_CAPTIONS), strict=False)]


async def describe(service: Service, name: str) -> dict[str, Any]:
    """`schemas.ItemAnswer` of an item. Raises Refusal."""
    item = await find_item(service, name)
    return await asyncio.to_thread(_describe, service.reader, item)


def _describe(reader: IndexReader, item: Item) -> dict[str, Any]:
    image, record = item.image, item.record
    captions = captions_of(reader, image) if image is not None else []
    picture = record if item.modality == "image" else _image_record(reader, image)
    kind = mimetypes.guess_type(image)[0] if image is not None and item.modality == "image" else None
    return {
        "key": keys.encode(item.modality, item.key),
        "kind": item.modality,
        "path": as_given(image or "", reader.info.roots),
        "absolute_path": image,
        "text": record.get("text"),
        "width": pixels_of(picture, "width"),
        "height": pixels_of(picture, "height"),
        "taken": text_of(picture, "taken"),
        "image_key": None if image is None else image_key(item, image),
        "field": text_of(record, "field"),
        "size": item.size or None,
        "modified": _moment(item.mtime_ns) if item.size or item.mtime_ns else None,
        "content_type": kind,
        "fields": fields if isinstance(fields := record.get("fields"), dict) else {},
        "captions": [
            {
                "key": keys.encode("text", key),
                "field": one.get("field"),
                "text": one.get("text"),
                "generated": one.get("generated") is True,
            }
            for key, one in captions
        ],
    }


def image_key(item: Item, image: str) -> str:
    """Its own, or that of its picture, whose key is its path unless it was imported under another."""
    return keys.encode("image", item.key if item.modality == "image" else image)


def _image_record(reader: IndexReader, image: str | None) -> dict[str, Any]:
    place = None if image is None else reader.find("image", image)
    return {} if place is None else reader.record("image", *place)


def _moment(mtime_ns: int) -> str | None:
    try:
        return datetime.fromtimestamp(mtime_ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
