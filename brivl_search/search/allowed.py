"""Which rows a filter lets through, decided exactly, before any vector is compared.

The shards' columns say it; records are read only where a field is not in the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.exif import is_believed
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.index.columns import NO_ZONE, Columns, DamagedColumns, comparable
from brivl_search.index.types import UNKNOWN_TIME
from brivl_search.search.compare import Accepted, pixels
from brivl_search.search.filters import Filter
from brivl_search.search.paths import Aliases, Patterns, all_paths, path_masks

Masks = list[NDArray[np.bool_]]  # (rows,) for each shard
Mask = NDArray[np.bool_]

_DAY = 86_400
_FARTHEST = 2 * _DAY  # seconds that a local clock is off UTC at most, and some
_EPOCH = datetime(1970, 1, 1)


def allowed(reader: IndexReader, modality: Modality, wanted: Filter) -> Masks:
    """bool (rows,) for each shard: the rows that satisfy the filter, of those that count.

    Raises:
        UsageError: no record has a field that `where` names.
    """
    masks = _allowed(reader, modality, wanted, Aliases(reader))
    if wanted.under and not any(mask.any() for mask in masks):
        masks = _allowed(reader, modality, wanted, Aliases(reader, deep=True))
    if wanted.where and not any(mask.any() for mask in masks):
        _check_fields(reader, modality, wanted)
    return masks


def _allowed(reader: IndexReader, modality: Modality, wanted: Filter, aliases: Aliases) -> Masks:
    of_image = Filter(wanted.under, wanted.glob, wanted.after, wanted.before, wanted.min_size)
    measured = of_image.after is not None or of_image.before is not None or of_image.min_size is not None
    fields = _accepted(wanted)
    if modality == "image" or not measured:
        paths = _by_path(reader, modality, wanted, aliases)
        masks = [one & two for one, two in zip(paths, _by_field(reader, modality, fields), strict=True)]
    else:
        images = _allowed(reader, "image", of_image, aliases)
        known: set[str] = set()
        for columns, mask in zip(reader.columns("image"), images, strict=True):
            paths_there = all_paths(reader, columns)
            known.update(paths_there[row] for row in np.flatnonzero(mask).tolist())
        masks = _by_field(reader, "text", fields)
        for number, columns in enumerate(reader.columns("text")):
            fits = [path in known for path in all_paths(reader, columns)]
            masks[number] &= _of_rows(columns, np.array(fits, dtype=bool))
    if modality == "image" and wanted.min_size is not None:
        masks = [one & two for one, two in zip(masks, _by_size(reader, wanted.min_size), strict=True)]
    if modality == "image" and (wanted.after is not None or wanted.before is not None):
        masks = [one & two for one, two in zip(masks, _by_time(reader, wanted), strict=True)]
    return [mask & live for mask, live in zip(masks, reader.live(modality), strict=True)]


def _each(reader: IndexReader, modality: Modality, mask: Callable[[int, Columns], Mask]) -> Masks:
    """A mask for each shard; columns that are damaged are made anew from the records."""
    found = []
    for number in range(len(reader.info.of(modality).shards)):
        try:
            found.append(mask(number, reader.columns(modality)[number]))
        except DamagedColumns:
            found.append(mask(number, reader.mend_columns(modality, number)))
    return found


def _of_rows(columns: Columns, of_paths: Mask) -> Mask:
    """What holds for paths, for the rows that have them."""
    path = columns.path_of_rows()
    return of_paths if path is None else of_paths[path]


# -- paths -------------------------------------------------------------------------------------------------------


def _by_path(reader: IndexReader, modality: Modality, wanted: Filter, aliases: Aliases) -> Masks:
    patterns = Patterns(wanted.glob) if wanted.glob else None

    def mask(number: int, columns: Columns) -> Mask:
        if not wanted.under and patterns is None:
            return np.ones(columns.rows, dtype=bool)
        return _of_rows(columns, path_masks(reader, columns, wanted.under, patterns, aliases))

    return _each(reader, modality, mask)


# -- fields ------------------------------------------------------------------------------------------------------


def _accepted(wanted: Filter) -> dict[str, Accepted]:
    values: dict[str, list[str]] = {}
    for name, value in wanted.where:
        values.setdefault(name, []).append(value)
    return {name: Accepted(typed) for name, typed in values.items()}


def _by_field(reader: IndexReader, modality: Modality, fields: dict[str, Accepted]) -> Masks:
    def mask(number: int, columns: Columns) -> Mask:
        found = np.ones(columns.rows, dtype=bool)
        for name, accepted in fields.items():
            if columns.knows(name):
                found &= _has(columns, name, accepted)
            else:
                found &= _looked_up(reader, modality, number, columns.rows, name, accepted)
        return found

    return _each(reader, modality, mask)


def _has(columns: Columns, name: str, accepted: Accepted) -> Mask:
    """A field of the caption file goes before the record's own."""
    found = np.zeros(columns.rows, dtype=bool)
    for space in ("record/", "fields/"):
        if (column := columns.column(space + name)) is None:
            continue
        values, codes = column
        hit = np.concatenate([[False], accepted.among(values, len(values))])
        found = np.where(codes > 0, hit[codes], found)
    return found


def _looked_up(reader: IndexReader, modality: Modality, shard: int, rows: int, name: str, accepted: Accepted) -> Mask:
    found = np.zeros(rows, dtype=bool)
    for _, row, record in reader.records(modality, {shard}):
        found[row] = accepted.fits(comparable(field_of(record, name)))
    return found


def field_of(record: dict[str, Any], name: str) -> Any:
    """A field of the caption file, or of the record itself; None if there is none."""
    fields = record.get("fields")
    return fields[name] if isinstance(fields, dict) and name in fields else record.get(name)


def _check_fields(reader: IndexReader, modality: Modality, wanted: Filter) -> None:
    """Nothing fits: is it because of a name that no record knows?"""
    columns = reader.columns(modality)
    known = {name.partition("/")[2] for one in columns for name in one.names}
    for name, _ in wanted.where:
        if name not in known and all(one.knows(name) for one in columns):
            raise UsageError(
                f"`where`: unknown field {name!r} (there are: {', '.join(sorted(known)) or 'none'})",
                code="unknown_field",
                details={"field": name, "fields": sorted(known)},
            )


# -- sizes and times ---------------------------------------------------------------------------------------------


def sizes(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Width and height of each row in pixels, float64 (rows,); 0 where they are not known."""
    return _numbers(columns, "record/width"), _numbers(columns, "record/height")


def _numbers(columns: Columns, name: str) -> NDArray[np.float64]:
    if (column := columns.column(name)) is None:
        return np.zeros(columns.rows)
    values, codes = column
    known: NDArray[np.float64] = np.array([0.0, *map(pixels, values)], np.float64)
    return known.take(codes)


def _by_size(reader: IndexReader, least: tuple[int, int]) -> Masks:
    def mask(number: int, columns: Columns) -> Mask:
        width, height = sizes(columns)
        fits: Mask = (width >= least[0]) & (height >= least[1])
        return fits

    return _each(reader, "image", mask)


def time_of(record: dict[str, Any], mtime_ns: int) -> float | None:
    """Seconds since the epoch: EXIF's time where the record has one to believe, else the file's.

    `mtime_ns` is one of `IndexReader.mtimes`. None if neither time is known.
    """
    taken = taken_at(record.get("taken"))
    if taken is not None:
        return taken
    return None if mtime_ns == UNKNOWN_TIME else mtime_ns / 1e9


def taken_at(text: Any) -> float | None:
    """Seconds since the epoch; None for what is no time, or none to believe: an index of before may hold others."""
    try:
        taken = datetime.fromisoformat(text)
        return taken.timestamp() if is_believed(taken) else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def times(columns: Columns, mtimes: NDArray[np.int64], bounds: Sequence[float]) -> NDArray[np.float64]:
    """Seconds since the epoch of each row, float64 (rows,), NaN where no time is known; see `time_of`.

    They are exact within two days of one of the bounds. A clock without a zone is the local one; elsewhere it is taken
    for UTC, which spares a look into the time zone's history for each row.
    """
    found = np.where(mtimes == UNKNOWN_TIME, np.nan, mtimes / 1e9)
    if (column := columns.column("record/taken")) is None:
        return found
    values, codes = column
    wall, zone = columns.walls()
    moments = np.where(zone == NO_ZONE, wall, wall - zone)
    with np.errstate(invalid="ignore"):
        near = np.zeros(len(moments), dtype=bool)
        for bound in bounds:
            near |= (zone == NO_ZONE) & (np.abs(moments - bound) < _FARTHEST)
        doubted = _doubted(wall)
    for row in np.flatnonzero((near | doubted) & ~np.isnan(wall)).tolist():
        exact = taken_at(values[row])
        moments[row] = np.nan if exact is None else exact
    taken = np.concatenate([[np.nan], moments])[codes]
    return np.where(np.isnan(taken), found, taken)


def _doubted(wall: NDArray[np.float64]) -> Mask:
    """bool (times,): the times that must be asked for one by one whether they are to be believed.

    Whole days are asked for at once; a day's single moments are at full minutes.
    """
    days = np.floor(wall / _DAY)
    doubted = np.zeros(len(wall), dtype=bool)
    for day in np.unique(days[~np.isnan(days)]).tolist():
        try:
            midnight = _EPOCH + timedelta(days=day)
        except OverflowError:
            doubted |= days == day
            continue
        if not is_believed(midnight + timedelta(hours=1, seconds=1)):
            doubted |= days == day
        elif not (is_believed(midnight) and is_believed(midnight + timedelta(hours=12))):
            doubted |= (days == day) & (np.floor(wall) % 60 == 0)
    return doubted


def _by_time(reader: IndexReader, wanted: Filter) -> Masks:
    changed = reader.mtimes("image")
    bounds = [bound for bound in (wanted.after, wanted.before) if bound is not None]

    def mask(number: int, columns: Columns) -> Mask:
        when = times(columns, changed[number], bounds)
        with np.errstate(invalid="ignore"):
            fits: Mask = ~np.isnan(when)
            if wanted.after is not None:
                fits &= when >= wanted.after
            if wanted.before is not None:
                fits &= when < wanted.before
        return fits

    return _each(reader, "image", mask)
