"""Scored rows → hits: what the index keeps of a row is read, and a match is put beside the score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from brivl_search.display import as_given
from brivl_search.errors import IndexIncompatibleError
from brivl_search.index import IndexReader, Modality
from brivl_search.search.hits import Hit
from brivl_search.search.rows import RowId, ScoredRow
from brivl_search.steps import step


class DamagedRow(Exception):
    """A row of an open shard is not what was sealed: a disk fails under an open index."""

    def __init__(self, shard: int, why: str) -> None:
        super().__init__(why)
        self.shard = shard


def to_hits(
    reader: IndexReader, modality: Modality, rows: Iterable[ScoredRow], matches: Mapping[RowId, float]
) -> list[Hit]:
    """Hits of one query, ranked from 1 in the order of the rows.

    Args:
        reader: of the rows.
        modality: what they are.
        rows: best first.
        matches: of rows and of those folded into them; empty: none is known.

    Raises:
        DamagedRow: a row cannot be read.
    """
    hits = []
    for rank, one in enumerate(rows, 1):
        hit = _hit(reader, modality, one.row, one.score, matches, rank)
        rest = tuple(_hit(reader, modality, *other, matches, 0) for other in one.alike)
        hits.append(replace(hit, duplicates=rest) if rest else hit)
    return hits


@step("records")
def _hit(
    reader: IndexReader, modality: Modality, row: RowId, score: float, matches: Mapping[RowId, float], rank: int
) -> Hit:
    try:
        entry = reader.entry(modality, *row)
    except IndexIncompatibleError as error:
        raise DamagedRow(row[0], str(error)) from None
    record = entry["record"]
    path = as_given(str(record.get("path" if modality == "image" else "image", "")), reader.info.roots)
    return Hit(rank, score, modality, path, record.get("text"), record, matches.get(row), key=entry["key"])
