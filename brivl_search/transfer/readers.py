"""What an import reads: rows one after the other, in little memory, with the file and line of each for messages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.text import seems_to_be
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import Item, Modality
from brivl_search.index.keys import caption_key
from brivl_search.index.types import ORIGINS, Origin
from brivl_search.transfer import lines
from brivl_search.transfer.formats import BLOCK, Kind, Rows, arrow_modules

NO_ARRAY = (OSError, ValueError, EOFError, BadZipFile)
_CHUNK = 1 << 20


@dataclass
class Given:
    """Rows that an import takes in.

    Attributes:
        lines: the file that holds the records; line k is row k.
        read: the rows, from the first on; vectors are floating (dim,), of any length but 0.
        files: all files that are read.
    """

    lines: Path
    read: Callable[[], Rows]
    files: tuple[Path, ...]
    _seen: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = self._stamps()

    def _stamps(self) -> list[tuple[int, ...]]:
        found = [path.stat() for path in self.files]
        return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in found]

    def place(self, number: int) -> str:
        """File and line of a row, which are counted from 1."""
        return f"{printable(str(self.lines))}:{number}"

    def check_unchanged(self) -> None:
        """Raises CorpusError: a file is not the one that the import began to read."""
        try:
            if self._stamps() == self._seen:
                return
        except OSError:
            pass
        raise CorpusError(f"{printable(str(self.lines))}, or its vectors, changed while they were read: import again")


def array_of(path: Path) -> NDArray[Any]:
    """The array of a .npy file, where it lies. Raises one of `NO_ARRAY`."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("several arrays (.npz): give one, as np.save writes it")
    return array


def foreign(vectors: Path, records: Path, modality: Modality, rows: int) -> Given:
    """Vectors made elsewhere: a .npy file of `rows` rows, and JSON lines.

    Raises:
        UsageError: there is no such file of records.
        CorpusError: it has another number of lines, or is not UTF-8.
    """
    if not records.is_file():
        raise UsageError(f"`records` {printable(str(records))}: no such file")
    if seems := seems_to_be(str(records)):
        raise CorpusError(lines.not_utf8(printable(str(records)), seems), code="not_utf8")
    _check_count(records, rows)

    folder, shown = os.path.dirname(os.path.abspath(records)), printable(str(records))

    def read() -> Rows:
        for number, (body, vector) in enumerate(_paired(records, vectors), start=1):
            yield _foreign(body, modality, folder, f"{shown}:{number}", vector), vector

    return Given(records, read, (vectors, records))


def exported(folder: Path, kind: Kind, modality: Modality, rows: int, dim: int) -> Given:
    """What `export` wrote of a modality.

    Raises:
        CorpusError: a file is missing, damaged or of another size than export.json says.
        DependencyError: parquet without pyarrow.
    """
    return _EXPORTED[kind](folder, modality, rows, dim)


# -- formats -----------------------------------------------------------------------------------------------------


def _npy(folder: Path, modality: Modality, rows: int, dim: int) -> Given:
    vectors, records = folder / f"{modality}.npy", folder / f"{modality}.jsonl"
    try:
        shape = array_of(vectors).shape
    except NO_ARRAY as error:
        raise CorpusError(f"{vectors}: {error}") from error
    if shape != (rows, dim):
        raise CorpusError(f"{vectors} is {shape}, export.json says {(rows, dim)}")
    _check_count(records, rows)

    def read() -> Rows:
        for number, (body, vector) in enumerate(_paired(records, vectors), start=1):
            yield _item(body, f"{records}:{number}"), vector

    return Given(records, read, (vectors, records))


def _jsonl(folder: Path, modality: Modality, rows: int, dim: int) -> Given:
    records = folder / f"{modality}.jsonl"
    if (found := _count(records)) != rows:
        raise CorpusError(f"{records} has {found:,} lines, export.json says {rows:,}")

    def read() -> Rows:
        for number, body in _bodies(records):
            try:
                vector = np.array(body["vector"], dtype=np.float32)
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise CorpusError(f"{records}:{number}: not a line that export wrote ({error!r})") from error
            if vector.shape != (dim,):
                raise CorpusError(f"{records}:{number}: its `vector` is no list of {dim} numbers")
            yield _item(body, f"{records}:{number}"), vector

    return Given(records, read, (records,))


def _parquet(folder: Path, modality: Modality, rows: int, dim: int) -> Given:
    _, parquet = arrow_modules()
    where = folder / f"{modality}.parquet"

    def bad(error: Exception) -> CorpusError:  # pyarrow's own are ValueErrors
        return CorpusError(f"{where}: not a file that export wrote ({' '.join(str(error).split())[:200]})")

    try:
        found = parquet.read_metadata(where).num_rows
    except (OSError, ValueError) as error:
        raise bad(error) from error
    if found != rows:
        raise CorpusError(f"{where} has {found:,} rows, export.json says {rows:,}")

    def read() -> Rows:
        number = 0
        try:
            for batch in parquet.ParquetFile(where).iter_batches(batch_size=BLOCK):
                vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
                for line, vector in zip(batch.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
                    number += 1
                    line["record"] = lines.parse(line["record"], f"{where}:{number}")
                    if line["key"].startswith("\0"):  # a name that is not UTF-8
                        line["key"] = lines.parse(line["key"][1:], f"{where}:{number}")
                    yield _item(line, f"{where}:{number}"), vector
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise bad(error) from error

    return Given(where, read, (where,))


_EXPORTED: dict[Kind, Callable[[Path, Modality, int, int], Given]] = {
    "npy": _npy,
    "jsonl": _jsonl,
    "parquet": _parquet,
}


# -- lines -------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CorpusError(f"{printable(str(path))}: {error.strerror or error}") from error


def _count(path: Path) -> int:
    """Lines of a file; the last need not end."""
    count, last = 0, b"\n"
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def _check_count(records: Path, rows: int) -> None:
    """Raises CorpusError: there are more lines than rows, or fewer."""
    found = _count(records)
    if found > rows:
        raise CorpusError(
            f"{printable(str(records))} has {found:,} lines, more lines than the {rows:,} rows of the vectors"
        )
    if found < rows:
        raise CorpusError(f"{printable(str(records))} has {found:,} lines for {rows:,} rows of vectors")


def _bodies(records: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line. Raises CorpusError: it is none."""
    shown = printable(str(records))
    with _opened(records) as file:
        for number, raw in enumerate(file, start=1):
            where = f"{shown}:{number}"
            body = lines.parse(raw, where)
            if not isinstance(body, dict):
                raise CorpusError(f"{where}: not a JSON object")
            yield number, body


def _paired(records: Path, vectors: Path) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
    """Line k and row k. The array is mapped anew for each block, so that no more of it stays in memory."""
    block: NDArray[Any] = np.empty((0, 0))
    for number, body in _bodies(records):
        at = (number - 1) % BLOCK
        if at == 0:
            block = np.array(array_of(vectors)[number - 1 : number - 1 + BLOCK])
        if at >= len(block):
            return  # more lines than were counted: `Given.check_unchanged` says so
        yield body, block[at]


def _foreign(body: dict[str, Any], modality: Modality, folder: str, where: str, vector: NDArray[Any]) -> Item:
    """The item of a line; `folder` is what its paths are relative to, `where` names the line."""
    name = "path" if modality == "image" else "text"
    if not isinstance(body.get(name), str) or not body[name]:
        raise CorpusError(f"{where}: no `{name}`")
    lines.texts_of(body, ("key", "path") if modality == "image" else ("key", "image", "field"), where)
    lines.check_fields(body, where)
    content = lines.content_of(body, where)
    body.pop("content", None)
    key = body.pop("key", None)
    try:
        if modality == "text":
            image = os.path.normpath(os.path.join(folder, body["image"])) if body.get("image") else ""
            record = {"field": "captions", **body, "image": image}
            content = content or hashlib.sha256(body["text"].encode("utf-8")).hexdigest()
            name = key or caption_key(image, record["field"], content)
            return Item(name, content, record=record, origin="import")
        path = os.path.normpath(os.path.join(folder, body["path"]))
        size = mtime_ns = 0
        if os.path.isfile(path):
            status = os.stat(path)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            if content is None:
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
        content = content or "vector-" + hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()
        return Item(key or path, str(content), size, mtime_ns, {**body, "path": path}, "import")
    except (TypeError, ValueError, OSError) as error:
        raise CorpusError(f"{where}: {error}") from error


def _item(body: dict[str, Any], where: str) -> Item:
    try:
        origin: Origin = body.get("origin", "unknown")
        if origin not in ORIGINS:
            raise ValueError(f"origin {origin!r}")
        content = lines.content_of(body, where)
        if not isinstance(body["key"], str) or not body["key"] or content is None:
            raise CorpusError(f"{where}: not a line that export wrote (its `key` or `content` is none)")
        if not isinstance(body["record"], dict):
            raise CorpusError(f"{where}: not a line that export wrote (its `record` is no object)")
        lines.check_fields(body["record"], where)
        size, mtime_ns = (lines.number_of(body, name, where) for name in ("size", "mtime_ns"))
        return Item(body["key"], content, size, mtime_ns, body["record"], origin)
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{where}: not a line that export wrote ({error!r})") from error
