"""Everything that a reader can know of a published index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.errors import IndexMissingError
from brivl_search.index import MODALITIES, IndexReader, catalog, verify

State = dict[str, Any]


def state(index: Path) -> State:
    """Everything a reader can know of an index, and that it is sound; {} where nothing was published yet."""
    try:
        report = verify(index)
    except IndexMissingError as error:
        assert "no index at" in str(error) or "has not finished" in str(error), error
        return {}
    assert report.problems == (), report.problems
    items: dict[str, list[tuple[str, str]]] = {}
    found: dict[str, list[Any]] = {}
    with catalog.reading(index) as (txn, meta):
        for modality in MODALITIES:
            entries = [catalog.Entry.unpack(key, value) for key, value in catalog.scan_items(txn, modality)]
            items[modality] = sorted((meta.where.here(entry.key), entry.content) for entry in entries)
        sources = [(source.kind, meta.where.here(source.path), source.present) for source in meta.sources]
    queries = np.random.default_rng(3).standard_normal((6, 32)).astype(np.float32)
    with IndexReader.open(index) as reader:
        assert reader.damage == ()
        for modality in MODALITIES:
            rows = sorted((item.key, item.content) for block, _ in reader.items(modality) for item in block)
            assert rows == items[modality], "items and rows differ"
            assert len({key for key, _ in rows}) == len(rows), "an item is there twice"
            for exact in (False, True):
                hits = reader.search(modality, queries, 10, exact=exact)
                names = [
                    [reader.record(modality, s, r) for s, r in zip(*pair, strict=True) if r >= 0]
                    for pair in zip(hits.shards.tolist(), hits.rows.tolist(), strict=True)
                ]
                found[f"{modality} {exact}"] = [names, hits.scores.tolist()]
        shards = [(s.rows, s.checksum, s.kind) for part in (reader.info.image, reader.info.text) for s in part.shards]
        tuning = [reader.info.image.tuning, reader.info.text.tuning]
    return {
        "items": items,
        "sources": sources,
        "found": found,
        "shards": shards,
        "tuning": tuning,
        "leftovers": report.leftovers,
    }
