"""The columns of a shard: what filters compare, sealed beside the records, so that no record is read.

They are one value of the shard: the length of a head (little-endian uint32), the head (JSON), then parts, each at a
multiple of 8 bytes. The head has `rows`, `names` (of columns), `left_out` (names that are in the records alone), `all`
(are these all names?) and `parts`: name -> [offset, bytes, CRC-32]. A column is called "record/NAME" or "fields/NAME":
what a record has itself, and what it has from a caption file.

    heads, tails    JSON lists of texts: a path is its head (all up to the last "/" or "::") and its tail
    head            uint (paths,): number of each path's head
    path            uint (rows,): number of each row's path; not there where row k has path k
    rank            uint (rows,): place of each row's key among the sorted ones; not there where keys ascend
    values/K        JSON list: the different values of column K, texts, numbers, booleans or lists of these
    codes/K         uint (rows,): 0 for no value, or 1 + the number of the value
    wall, zone      of the values of "record/taken": float64, seconds since 1970 on the clock that was read, NaN for no
                    time; int32, that clock's seconds ahead of UTC, or the least int32 where they are not known
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import BrivlSearchError

NOT_KEPT = frozenset({"path", "image", "text", "fields", "phash"})  # no field, or other for each row
_MOST_FIELDS = 256
_ROOM = 64  # bytes a row that the values of a field may take, and a megabyte
_LENGTH = struct.Struct("<I")
_EPOCH = datetime(1970, 1, 1)
_TAKEN = "record/taken"
NO_ZONE = -(1 << 31)
_SEPARATORS = tuple(dict.fromkeys(("/", "::", os.sep)))


class DamagedColumns(BrivlSearchError):
    """The columns of a shard are not what was sealed."""


def split(path: str) -> tuple[str, str]:
    """(head, tail) of a path: the head ends with the last separator."""
    at = max(path.rfind(one) + len(one) if one in path else 0 for one in _SEPARATORS)
    return path[:at], path[at:]


def _named(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name of its column, value) of all that is compared."""
    for name, value in record.items():
        if name not in NOT_KEPT:
            yield "record/" + name, value
    fields = record.get("fields")
    if isinstance(fields, dict):
        for name, value in fields.items():
            yield "fields/" + name, value


def comparable(value: Any) -> Any:
    """A value as filters compare it, None for one that they never find: text, number, boolean, or a list of these."""
    if isinstance(value, list):
        return [one for one in value if not isinstance(one, list) and comparable(one) is not None] or None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None


class _Field:
    """The values of one field, as they come."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.values: list[Any] = []
        self.rows, self.codes = array("I"), array("I")
        self.size = 0

    def add(self, row: int, value: Any) -> None:
        key = (list, json.dumps(value)) if isinstance(value, list) else (value.__class__, value)
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.values)
            self.values.append(value)
            self.size += len(key[1]) if isinstance(key[1], str) else 8
        self.rows.append(row)
        self.codes.append(number + 1)


class ColumnBuilder:
    """Takes the rows of a shard in order, and gives the bytes of its columns.

    Args:
        path_name: where a record has its path: "path" or "image".
    """

    def __init__(self, path_name: str) -> None:
        self.rows = 0
        self._path_name = path_name
        self._heads: dict[str, int] = {}
        self._head = array("I")
        self._tails: list[str] = []
        self._paths: dict[str, int] = {}
        self._path = array("I")
        self._last_key, self._ascending = "", True
        self._fields: dict[str, _Field] = {}
        self._left_out: set[str] = set()
        self._all = True

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """The next row."""
        self._add_path(str(record.get(self._path_name, "")))
        self._ascending = self._ascending and (not self.rows or key > self._last_key)
        self._last_key = key
        for name, value in _named(record):
            if name in self._left_out or (value := comparable(value)) is None:
                continue
            field = self._fields.get(name)
            if field is None:
                if len(self._fields) >= _MOST_FIELDS:
                    self._all = False
                    continue
                field = self._fields[name] = _Field()
            field.add(self.rows, value)
            if field.size > _ROOM * self.rows + (1 << 20):
                del self._fields[name]
                self._left_out.add(name)
        self.rows += 1

    def _add_path(self, path: str) -> None:
        if self._path_name == "path":  # each has its own
            number = len(self._tails)
        else:
            number = self._paths.setdefault(path, len(self._tails))
            self._path.append(number)
        if number == len(self._tails):
            head, tail = split(path)
            self._head.append(self._heads.setdefault(head, len(self._heads)))
            self._tails.append(tail)

    def to_bytes(self, keys: Callable[[], Iterable[str]]) -> bytes:
        """All of it.

        Args:
            keys: the rows' keys once more; asked for only if they did not ascend.
        """
        parts = {
            "heads": _json(list(self._heads)),
            "tails": _json(self._tails),
            "head": _numbers(self._head),
        }
        if self._path:
            parts["path"] = _numbers(self._path)
        if not self._ascending:
            names = list(keys())
            rank = np.empty(len(names), np.int64)
            rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
            parts["rank"] = _numbers(rank)
        for number, (name, field) in enumerate(self._fields.items()):
            codes: NDArray[np.uint32] = np.zeros(self.rows, np.uint32)
            codes[field.rows] = field.codes
            parts[f"values/{number}"], parts[f"codes/{number}"] = _json(field.values), _numbers(codes)
            if name == _TAKEN:
                wall, zone = walls(field.values)
                parts["wall"], parts["zone"] = wall.tobytes(), zone.tobytes()
        head = {
            "rows": self.rows,
            "names": list(self._fields),
            "left_out": sorted(self._left_out),
            "all": self._all,
            "parts": {},
        }
        return _pack(head, parts)


def walls(values: Iterable[Any]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Times as texts -> seconds since 1970 on their own clocks, NaN for none, and how far these are ahead of UTC."""
    found = []
    for value in values:
        try:
            moment = datetime.fromisoformat(value)
            ahead = moment.utcoffset()
            wall = (moment.replace(tzinfo=None) - _EPOCH).total_seconds()
            found.append((wall, NO_ZONE if ahead is None else ahead.total_seconds()))
        except (TypeError, ValueError, OverflowError):
            found.append((math.nan, NO_ZONE))
    table = np.array(found, "<f8").reshape(-1, 2)
    return np.ascontiguousarray(table[:, 0]), table[:, 1].astype("<i4")


class Columns:
    """The columns of a shard, read part by part; every part is compared with its sum when it is first read.

    Args:
        raw: uint8 (bytes,), as `ColumnBuilder` gave them.

    Attributes:
        rows: of the shard.
        names: of the columns, "record/NAME" and "fields/NAME".

    Raises:
        DamagedColumns: they are not what was sealed; every method does.
    """

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self._raw = raw
        self._sound: set[str] = set()
        try:
            (length,) = _LENGTH.unpack(raw[: _LENGTH.size].tobytes())
            head = json.loads(raw[_LENGTH.size : _LENGTH.size + length].tobytes())
            self.rows, self.names = int(head["rows"]), tuple(head["names"])
            self._left_out, self._all = frozenset(head["left_out"]), bool(head["all"])
            self._parts: dict[str, tuple[int, int, int]] = {
                name: (int(offset), int(size), int(crc)) for name, (offset, size, crc) in head["parts"].items()
            }
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise DamagedColumns(f"the head of the columns cannot be read ({error})") from error

    def _part(self, name: str) -> NDArray[np.uint8]:
        offset, size, crc = self._parts[name]
        part = self._raw[offset : offset + size]
        if name not in self._sound:
            if len(part) != size or zlib.crc32(part.data) != crc:
                raise DamagedColumns(f"the checksum of the column {name} differs")
            self._sound.add(name)
        return part

    def _texts(self, name: str) -> list[Any]:
        found: list[Any] = json.loads(self._part(name).tobytes())
        return found

    def _uints(self, name: str, count: int) -> NDArray[Any]:
        part = self._part(name)
        return part.view(f"<u{len(part) // count}") if count else np.zeros(0, np.uint8)

    def heads(self) -> list[str]:
        """What paths begin with, each once, up to the last separator."""
        return self._texts("heads")

    def tails(self) -> list[str]:
        """The rest of each path."""
        return self._texts("tails")

    def head_of_paths(self, count: int) -> NDArray[Any]:
        """Unsigned (count,): the number of each path's head.

        Args:
            count: of the paths, which is `len(tails())`.
        """
        return self._uints("head", count)

    def path_of_rows(self) -> NDArray[Any] | None:
        """Unsigned (rows,): the number of each row's path; None where row k has path k."""
        return self._uints("path", self.rows) if "path" in self._parts else None

    def count_paths(self) -> int:
        """Different paths."""
        path = self.path_of_rows()
        if path is None:
            return self.rows
        return int(path.max()) + 1 if len(path) else 0

    def rank(self) -> NDArray[Any] | None:
        """Unsigned (rows,): the place of each row's key among the sorted ones; None where keys ascend."""
        return self._uints("rank", self.rows) if "rank" in self._parts else None

    def knows(self, name: str) -> bool:
        """Whether the columns tell which rows have a field; else only the records do."""
        left_out = self._left_out & {"record/" + name, "fields/" + name}
        return name not in NOT_KEPT and not left_out and self._all

    def column(self, name: str) -> tuple[list[Any], NDArray[Any]] | None:
        """The different values of a column, and unsigned (rows,): 0 for no value, or 1 + the number of the value.

        None if no row has a value. `name` is one of `names`.
        """
        if name not in self.names:
            return None
        number = self.names.index(name)
        return self._texts(f"values/{number}"), self._uints(f"codes/{number}", self.rows)

    def walls(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """`walls` of the values of "record/taken", which there must be."""
        return self._part("wall").view("<f8"), self._part("zone").view("<i4")


def build(path_name: str, values: Callable[[], Iterable[bytes]]) -> Columns:
    """Columns of a shard that was sealed without, from the values of its `record` keys.

    Args:
        path_name: as of `ColumnBuilder`.
        values: of every row, in order; may be asked for twice.
    """
    builder = ColumnBuilder(path_name)
    for value in values():
        body = json.loads(value)
        builder.add(body["key"], body["record"])
    return Columns(np.frombuffer(builder.to_bytes(lambda: keys_of(values())), np.uint8))


def keys_of(values: Iterable[bytes]) -> Iterator[str]:
    """The keys in the values of `record` keys."""
    return (json.loads(value)["key"] for value in values)


def _json(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def _numbers(values: Any) -> bytes:
    """In as few bytes each as the largest takes."""
    array = np.asarray(values, np.int64)
    most = int(array.max()) if len(array) else 0
    kind = next(kind for kind in ("<u1", "<u2", "<u4") if most <= np.iinfo(kind).max)
    return array.astype(kind).tobytes()


def _pack(head: dict[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """The head says where parts lie, and its length depends on that: a room is fixed first."""
    room = len(_json([{**head, "parts": {name: [1 << 40, 1 << 40, 1 << 32] for name in parts}}]))
    at = -(-(_LENGTH.size + room) // 8) * 8
    start, table, pieces = at, {}, []
    for name, part in parts.items():
        table[name] = [at, len(part), zlib.crc32(part)]
        padded = part + bytes(-len(part) % 8)
        pieces.append(padded)
        at += len(padded)
    text = json.dumps({**head, "parts": table}, separators=(",", ":")).encode()
    text += b" " * (start - _LENGTH.size - len(text))
    return b"".join([_LENGTH.pack(len(text)), text, *pieces])
