"""Which rows a filter lets through, decided from records alone and exactly, before any vector is compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.exif import is_believed
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.index.types import UNKNOWN_TIME
from brivl_search.search.filters import Filter

Masks = list[NDArray[np.bool_]]  # (rows,) for each shard

_LOOKED_AT = 20_000  # records searched for the names of fields, for a message
_PLAIN = (str, int, float, bool)


def allowed(reader: IndexReader, modality: Modality, wanted: Filter) -> Masks:
    """bool (rows,) for each shard: the rows that satisfy the filter. Reads every record once.

    Raises:
        UsageError: no record has a field that `where` names.
    """
    of_image = Filter(wanted.under, wanted.glob, wanted.after, wanted.before, wanted.min_size)
    if modality == "image":
        masks = _scan(reader, "image", _image_test(reader, wanted), _needles(wanted))
    elif of_image.after is None and of_image.before is None and of_image.min_size is None:
        masks = _scan(reader, "text", lambda record, *_: _path_fits(record, "image", wanted), _needles(wanted), wanted)
    else:
        paths = set()
        test = _image_test(reader, of_image)
        for shard, row, record in reader.records("image"):
            if test(record, shard, row):
                paths.add(record["path"])
        masks = _scan(reader, "text", lambda record, *_: record.get("image") in paths, _needles(wanted), wanted)
    if wanted.where and not any(mask.any() for mask in masks):
        _check_fields(reader, modality, wanted)
    return masks


Test = Callable[[dict[str, Any], int, int], bool]


def _scan(
    reader: IndexReader, modality: Modality, test: Test, needles: list[list[bytes]], also: Filter | None = None
) -> Masks:
    masks = [np.zeros(shard.rows, dtype=bool) for shard in reader.info.of(modality).shards]
    for shard, row, value in reader.values(modality):
        if all(any(needle in value for needle in group) for group in needles):  # most rows need not be parsed
            record = json.loads(value)["record"]
            masks[shard][row] = test(record, shard, row) and (also is None or _fields_fit(record, also))
    return masks


def _needles(wanted: Filter) -> list[list[bytes]]:
    """Bytes of which one of each group is in the JSON of every row that fits."""
    groups = [[_quoted(inside) for folder in wanted.under for inside in _insides(folder)]] if wanted.under else []
    for name in dict(wanted.where):
        if name not in ("field", "width", "height", "taken"):
            groups.append([_quoted(name)])
    return groups


def _insides(folder: str) -> tuple[str, str]:
    """What paths begin with that lie in a folder, or are members of a tar and the like (CONTAINER::MEMBER)."""
    return os.path.join(folder, ""), folder + "::"


def holds(folder: str, path: str) -> bool:
    """Whether a path lies in a folder, at any depth, or is a member of a tar and the like."""
    return path.startswith(_insides(folder))


def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")


def _image_test(reader: IndexReader, wanted: Filter) -> Test:
    timed = wanted.after is not None or wanted.before is not None
    changed = reader.mtimes("image") if timed else []

    def test(record: dict[str, Any], shard: int, row: int) -> bool:
        if not _path_fits(record, "path", wanted) or not _fields_fit(record, wanted):
            return False
        if wanted.min_size is not None:
            width, height = wanted.min_size
            if (record.get("width") or 0) < width or (record.get("height") or 0) < height:
                return False
        if not timed:
            return True
        when = time_of(record, int(changed[shard][row]))
        return (
            when is not None
            and (wanted.after is None or when >= wanted.after)
            and (wanted.before is None or when < wanted.before)
        )

    return test


def time_of(record: dict[str, Any], mtime_ns: int) -> float | None:
    """Seconds since the epoch: EXIF's time where the record has one to believe, else the file's.

    `mtime_ns` is one of `IndexReader.mtimes`. None if neither time is known.
    """
    try:
        taken = datetime.fromisoformat(record["taken"])
        if is_believed(taken):  # an index of before may hold others
            return taken.timestamp()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        pass
    return None if mtime_ns == UNKNOWN_TIME else mtime_ns / 1e9


def _path_fits(record: dict[str, Any], name: str, wanted: Filter) -> bool:
    path = str(record.get(name, ""))
    if wanted.under and not any(holds(folder, path) for folder in wanted.under):
        return False
    base = os.path.basename(path.rpartition("::")[2])
    return not wanted.glob or any(fnmatchcase(path if "/" in one else base, one) for one in wanted.glob)


def _fields_fit(record: dict[str, Any], wanted: Filter) -> bool:
    values: dict[str, list[str]] = {}
    for name, value in wanted.where:
        values.setdefault(name, []).append(value)
    return all(_has(field_of(record, name), accepted) for name, accepted in values.items())


def field_of(record: dict[str, Any], name: str) -> Any:
    """A field of the caption file, or of the record itself; None if there is none."""
    fields = record.get("fields") or {}
    return fields[name] if name in fields else record.get(name)


def _has(value: Any, accepted: list[str]) -> bool:
    found = value if isinstance(value, list) else [value]
    return any(_equal(one, text) for one in found if isinstance(one, _PLAIN) for text in accepted)


def _equal(value: str | int | float | bool, text: str) -> bool:
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, str):
        return value == text
    try:
        return float(text) == value
    except ValueError:
        return False


def _check_fields(reader: IndexReader, modality: Modality, wanted: Filter) -> None:
    """Nothing fits: is it because of a name that no record knows?"""
    known: set[str] = set()
    for number, (_, _, record) in enumerate(reader.records(modality)):
        known.update(record.get("fields") or {})
        known.update(name for name in ("field", "width", "height", "taken") if name in record)
        if number == _LOOKED_AT:
            return
    for name, _ in wanted.where:
        if name not in known:
            raise UsageError(
                f"`where`: unknown field {name!r} (there are: {', '.join(sorted(known)) or 'none'})",
                code="unknown_field",
                details={"field": name, "fields": sorted(known)},
            )
