"""Scored rows → hits: what the index keeps of a row is read, and a match is put beside the score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from brivl_search.display import as_given
from brivl_search.encoders.calibration import Calibration
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
    reader: IndexReader, modality: Modality, rows: Iterable[ScoredRow], calibration: Calibration | None
) -> list[Hit]:
    """Hits of one query, ranked from 1 in the order of the rows.

    Args:
        reader: of the rows.
        modality: what they are.
        rows: best first.
        calibration: turns a score into a match; None: no match is known.

    Raises:
        DamagedRow: a row cannot be read.
    """
    hits = []
    for rank, one in enumerate(rows, 1):
        hit = _hit(reader, modality, one.row, one.score, calibration, rank)
        rest = tuple(_hit(reader, modality, *other, calibration, 0) for other in one.alike)
        hits.append(replace(hit, duplicates=rest) if rest else hit)
    return hits


@step("records")
def _hit(
    reader: IndexReader, modality: Modality, row: RowId, score: float, calibration: Calibration | None, rank: int
) -> Hit:
    try:
        entry = reader.entry(modality, *row)
    except IndexIncompatibleError as error:
        raise DamagedRow(row[0], str(error)) from None
    record = entry["record"]
    path = as_given(str(record.get("path" if modality == "image" else "image", "")), reader.info.roots)
    match = None if calibration is None else calibration.probability(score)
    return Hit(rank, score, modality, path, record.get("text"), record, match, key=entry["key"])
