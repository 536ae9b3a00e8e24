"""What an index holds, for messages: names, folders, values, sizes and times, from the shards' columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brivl_search.index import IndexReader, Modality
from brivl_search.index.columns import Columns, DamagedColumns
from brivl_search.search.allowed import field_of, sizes, times
from brivl_search.search.paths import all_paths


def _columns(reader: IndexReader, modality: Modality) -> Iterator[tuple[int, Columns, NDArray[np.bool_]]]:
    """(shard, columns, bool (rows,): rows that count) of each shard that has such rows."""
    for number, live in enumerate(reader.live(modality)):
        if live.any():
            yield number, reader.columns(modality)[number], live


def paths(reader: IndexReader, modality: Modality) -> set[str]:
    """Of the images, or of the captions' images."""
    found: set[str] = set()
    for number, columns, live in _columns(reader, modality):
        try:
            there = all_paths(reader, columns)
        except DamagedColumns:
            columns = reader.mend_columns(modality, number)
            there = all_paths(reader, columns)
        numbers = columns.path_of_rows()
        rows = np.flatnonzero(live) if numbers is None else np.unique(numbers[live])
        found.update(there[row] for row in rows.tolist())
    return found


def values(reader: IndexReader, modality: Modality, name: str) -> set[str]:
    """The values of a field, as texts."""
    found: set[str] = set()
    for number, columns, live in _columns(reader, modality):
        if not columns.knows(name):
            for _, _, record in reader.records(modality, {number}):
                found.update(_texts(field_of(record, name)))
            continue
        for space in ("record/", "fields/"):
            if (column := columns.column(space + name)) is not None:
                there, codes = column
                for code in np.unique(codes[live]).tolist():
                    if code:
                        found.update(_texts(there[code - 1]))
    return found


def _texts(value: object) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one is not None]


def largest(reader: IndexReader) -> tuple[int, int]:
    """(width, height) of the image with the most pixels."""
    best = (0, 0)
    for _, columns, live in _columns(reader, "image"):
        width, height = (side[live] for side in sizes(columns))
        at = int(np.argmax(width * height))
        best = max(best, (int(width[at]), int(height[at])), key=lambda size: size[0] * size[1])
    return best


def span(reader: IndexReader) -> tuple[float, float] | None:
    """Seconds since the epoch of the oldest and of the newest image; None where none has a time."""
    changed = reader.mtimes("image")

    def all_times(bounds: list[float]) -> NDArray[np.float64]:
        found = [times(columns, changed[at], bounds)[live] for at, columns, live in _columns(reader, "image")]
        joined: NDArray[np.float64] = np.concatenate([np.zeros(0), *found])
        return joined[~np.isnan(joined)]

    rough = all_times([])
    if not len(rough):
        return None
    exact = all_times([float(rough.min()), float(rough.max())])
    return float(exact.min()), float(exact.max())
