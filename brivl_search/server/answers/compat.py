"""Hits and records as clip-retrieval's clients read them: under whole numbers."""

from __future__ import annotations

from typing import Any

from brivl_search.index import IndexReader, Modality
from brivl_search.search.hits import Hit
from brivl_search.server.answers.items import captions_of
from brivl_search.server.protocol import keys

_WITH_CAPTIONS = 100  # images of an answer whose captions are looked up


def knn_rows(reader: IndexReader, hits: list[Hit], base: str) -> list[dict[str, Any]]:
    rows = []
    for hit in hits:
        place = reader.find(hit.kind, hit.key)
        if place is None:
            continue
        known = _facts(reader, hit.kind, hit.key, hit.record, base, captions=len(hits) <= _WITH_CAPTIONS)
        rows.append({"id": _number(reader, hit.kind, *place), "similarity": round(hit.score, 6), **known})
    return rows


def metadata(reader: IndexReader, ids: list[int], base: str) -> list[dict[str, Any]]:
    """Nothing of ids that no row has any more: an id is a place in the index, and places change with generations."""
    rows = []
    for number in ids:
        found = _row(reader, number)
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


def _row(reader: IndexReader, number: int) -> tuple[Modality, int, int] | None:
    modality: Modality = "text" if number & 1 else "image"
    seq, row = number >> 33, (number >> 1) & 0xFFFFFFFF
    for shard, info in enumerate(reader.info.of(modality).shards):
        if info.seq == seq and row < info.rows:
            key = reader.entry(modality, shard, row)["key"]
            return (modality, shard, row) if reader.find(modality, key) == (shard, row) else None
    return None
