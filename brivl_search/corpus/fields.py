"""Extra fields of caption lines and annotations: the scalars that records carry for filters, and how lines merge."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

Scalar = str | int | float | bool
Fields = dict[str, Scalar | list[Scalar]]

MAX_LENGTH = 200  # characters of a name or a value; records are read with every hit
MAX_VALUES = 32  # of one field of one image
MAX_FIELDS = 64


def scalars(record: Mapping[str, object], without: Collection[str] = ()) -> dict[str, Scalar]:
    """The fields of a JSON object that are worth keeping: scalars, no null, no strings over 200 characters.

    Args:
        record: the object.
        without: names of fields that mean something else, such as the captions.
    """
    kept: dict[str, Scalar] = {}
    for name, value in record.items():
        if name not in without and _is_short(name) and _is_kept(value):
            kept[name] = value  # type: ignore[assignment]
            if len(kept) == MAX_FIELDS:
                break
    return kept


def scalars_and_lists(record: Mapping[str, object], without: Collection[str] = ()) -> Fields:
    """As `scalars`, and lists of such values: `"tags": ["sea", "dog"]` is found by each. Other values are left out."""
    kept: Fields = dict(scalars(record, without))
    for name, value in record.items():
        if len(kept) < MAX_FIELDS and isinstance(value, list) and name not in without and _is_short(name):
            values = {(type(one), one): one for one in value if not isinstance(one, list | dict) and _is_kept(one)}
            if values:
                kept[name] = list(values.values())[:MAX_VALUES]
    return kept


def _is_kept(value: object) -> bool:
    if isinstance(value, str):
        return _is_short(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 1 << 63


def _is_short(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates cannot be printed
        return False
    return len(text) <= MAX_LENGTH


def merge(into: Fields, more: Mapping[str, Scalar | list[Scalar]]) -> None:
    """Add the fields of another line of the same thing; where they disagree the values become a list."""
    for name, values in more.items():
        for value in values if isinstance(values, list) else [values]:
            if name not in into:
                if len(into) < MAX_FIELDS:
                    into[name] = value
                continue
            before = into[name]
            there = before if isinstance(before, list) else [before]
            if len(there) < MAX_VALUES and not any(type(one) is type(value) and one == value for one in there):
                into[name] = [*there, value]
