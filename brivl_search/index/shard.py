"""A shard: one LMDB file that is written once, sealed, and from then on only read.

columns            what filters compare, see `columns`; older shards have none
ivfpq              FAISS bytes of an IndexIVFPQ, ids = row numbers, or of an empty IndexIVFPQFastScan (none if exact)
lists              the inverted lists of an IndexIVFPQFastScan, as `ivfpq.pack_lists` lays them out
meta               JSON: format version, modality, rows, dim, kind, encoder fingerprint, quantizer sha256
kept               of which rows there are regions: a bit a row, the first row is the highest bit of the first byte
record + row       JSON {"key", "content", "record"}; row as big-endian uint64
regions + row      what a matcher reads of the picture, see `regions`; mostly absent
sums               little-endian uint32 (rows,): CRC-32 of each row's vector bytes followed by its JSON
vectors            little-endian float16 (rows, dim) as one value
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import IndexIncompatibleError, UsageError
from brivl_search.index import ivfpq, places
from brivl_search.index.columns import Columns, DamagedColumns
from brivl_search.index.columns import build as build_columns
from brivl_search.index.store import Environment, scan_txn
from brivl_search.index.trust import is_sound
from brivl_search.index.types import Modality, ShardInfo

BLOCK = 65_536
RECORD = b"record"
KEPT = b"kept"
_REGIONS = b"regions"
PATH_NAMES: dict[Modality, str] = {"image": "path", "text": "image"}  # where a record has its path
_ROW = struct.Struct(">Q")
_MAX_VALUE = (4 << 30) - 1


def check_size(rows: int, dim: int) -> None:
    """Refuse shards whose vectors or codes would not fit one LMDB value.

    Raises:
        UsageError: rows x dim x 2 bytes reach 4 GiB.
    """
    most = _MAX_VALUE // max(2 * dim, ivfpq.pq_bytes(dim) + 16)
    if not 1 <= rows <= most:
        raise UsageError(f"shard_rows must be between 1 and {most:,} for vectors of {dim} dimensions, not {rows:,}")


def most_rows(dim: int) -> int:
    """The largest shard_rows allowed for vectors of `dim` dimensions, for the default to bow to."""
    return _MAX_VALUE // (2 * dim + 16)


def record_key(row: int) -> bytes:
    """The key of a row's record."""
    return RECORD + _ROW.pack(row)


def regions_key(row: int) -> bytes:
    """The key of a row's regions."""
    return _REGIONS + _ROW.pack(row)


def record_value(key: str, content: str, record: Any) -> bytes:
    """The value of a `record` key."""
    body = {"key": key, "content": content, "record": record}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


def parse_value(value: bytes) -> dict[str, Any]:
    """{"key", "content", "record"} of the value of a `record` key. NaN, which older imports let in, is null."""
    body: dict[str, Any] = _DECODER.decode(value.decode("utf-8", "surrogatepass"))
    return body


def row_sum(vector: NDArray[np.float16], value: bytes) -> int:
    """CRC-32 of a row: its vector's bytes, then its JSON."""
    return zlib.crc32(value, zlib.crc32(vector.tobytes()))


class Shard:
    """A sealed shard, open for reading. Opening reads a few pages of it; FAISS is touched only by `index`.

    There is no `close`: the file is unmapped when the shard and every array and FAISS index taken from it are gone,
    so no thread can be left with a view of nothing.

    Attributes:
        info: what the catalog says of it.
        vectors: float16 (rows, dim), a view of the map.
    """

    def __init__(self, directory: Path, info: ShardInfo, dim: int, *, trusted: bool = False) -> None:
        """`trusted`: the caller has just checked the file's hash.

        Raises: FileNotFoundError; IndexIncompatibleError if the file is not what the catalog says.
        """
        self.path = directory / "shards" / info.name
        self.info = info
        self._lock = threading.Lock()
        self._index: Any = None
        self._columns: Columns | None = None
        self._kept: tuple[str, NDArray[np.bool_]] | None = None
        self._handle = os.open(self.path, os.O_RDONLY)  # of the mapped file, whatever has its name later
        weakref.finalize(self, os.close, self._handle)
        size = self.path.stat().st_size
        if size != info.bytes:
            raise self._damaged(f"{size:,} bytes instead of {info.bytes:,}")
        if not trusted and not is_sound(directory, info):  # before anything is mapped: LMDB trusts its pages
            raise self._damaged("its checksum differs: the file was changed after it was sealed")
        try:
            self.environment = Environment(self.path)
        except lmdb.Error as error:
            self.path.stat()  # FileNotFoundError: a build published and removed it since the line above
            raise self._damaged(str(error)) from error
        self._txn = self.environment.env.begin(buffers=True)
        self._base: int | None = None
        if info.places:
            self._base = places.base(info.places, self._txn.get(places.ANCHOR, b"\0"), info.bytes)
            if self._base is None:
                raise self._damaged("its values are not where the catalog says")
        raw = self._mapped(b"vectors")
        if raw.nbytes != 2 * info.rows * dim:
            raise self._damaged("it holds another number of vectors than the catalog says")
        self.vectors: NDArray[np.float16] = raw.view("<f2").reshape(info.rows, dim)
        self._sums = self._mapped(b"sums").view("<u4") if info.mtime_ns else None  # format 1 had neither

    def _mapped(self, key: bytes) -> NDArray[np.uint8]:
        """The value where it lies in the map, as uint8 (bytes,); the array keeps the map alive."""
        if self._base is not None and key.decode() in self.info.places:
            offset, size = self.info.places[key.decode()]
            return np.asarray(places.Mapped(self._base + offset, size, self._txn, self.environment))
        value = self._txn.get(key)
        if value is None:
            raise self._damaged(f"its {key.decode()} value is missing")
        return np.asarray(places.Mapped(places.address(value), len(value), self._txn, self.environment))

    def whole(self) -> bool:
        """Is the mapped file as long as it was? To read behind its end would kill the process (SIGBUS)."""
        return os.fstat(self._handle).st_size >= self.info.bytes

    def check(self) -> None:
        """Raises IndexIncompatibleError: the file was cut short while it is open."""
        if not self.whole():
            raise self._damaged("it was cut short while it was open: replace files by renaming others into their place")

    def _damaged(self, why: str) -> IndexIncompatibleError:
        return IndexIncompatibleError(f"{self.path} is damaged ({why}): mend the index with `repair`")

    @property
    def index(self) -> Any:
        """The IndexIVFPQ or IndexIVFPQFastScan in the map, None in an exact shard."""
        with self._lock:
            if self._index is None and self.info.kind == "ivfpq":
                lists = self._mapped(b"lists") if "lists" in self.info.places else None
                try:
                    self._index = ivfpq.view(self._mapped(b"ivfpq"), lists)
                except (RuntimeError, ValueError) as error:
                    raise self._damaged(f"FAISS cannot read it: {error}".splitlines()[0]) from error
            return self._index

    @property
    def columns(self) -> Columns:
        """What filters compare; made from all records, and kept, where they were not sealed with the shard.

        Raises:
            DamagedColumns: they are not what was sealed.
        """
        with self._lock:
            if self._columns is None:
                if self._has_columns:
                    self._columns = Columns(self._mapped(b"columns"))
                else:
                    self._columns = self._build_columns()
            return self._columns

    def mend_columns(self) -> Columns:
        """The columns made from the records, instead of those that are damaged."""
        with self._lock:
            self._columns = self._build_columns()
            return self._columns

    def _build_columns(self) -> Columns:
        return build_columns(PATH_NAMES[self._modality], lambda: (value for _, value in self.values()))

    @property
    def _modality(self) -> Modality:
        return "text" if self.info.name.startswith("text") else "image"

    def bulk(self) -> list[NDArray[Any]]:
        """What searches touch, in the order in which they miss it most: see `warm`."""
        keys = [key for key in ("lists", "ivfpq") if key in self.info.places]
        return [*(self._mapped(key.encode()) for key in keys), self.vectors]

    def entry(self, row: int) -> dict[str, Any]:
        """{"key", "content", "record"} of a row. Raises IndexError; IndexIncompatibleError if its checksum differs."""
        if not 0 <= row < self.info.rows:
            raise IndexError(f"row {row} of {self.info.rows}")
        self.check()
        with self._lock:
            value = self._txn.get(record_key(row))
            if value is None:
                raise self._damaged(f"record {row} is missing")
            if self._sums is not None and row_sum(self.vectors[row], bytes(value)) != self._sums[row]:
                raise self._damaged(f"the checksum of row {row} differs")
            return parse_value(bytes(value))

    def kept(self, fingerprint: str) -> NDArray[np.bool_]:
        """bool (rows,): rows whose regions are kept for the matcher of this fingerprint."""
        if self._kept is None:
            about, bits = self.meta().get("regions"), self._txn.get(KEPT)
            rows: NDArray[np.bool_] = np.zeros(self.info.rows, bool)
            if about is not None and bits is not None and 8 * len(bits) >= len(rows):
                rows = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(rows)).astype(bool)
            self._kept = ("" if about is None else str(about["fingerprint"])), rows
        matcher, rows = self._kept
        return rows if matcher == fingerprint else np.zeros(self.info.rows, bool)

    def regions(self, row: int, fingerprint: str) -> bytes | None:
        """A row's regions as `regions.pack` made them; None: they are not kept for the matcher of this fingerprint."""
        if not self.kept(fingerprint)[row] or not self.whole():
            return None
        with self._lock, contextlib.suppress(lmdb.Error):
            value = self._txn.get(regions_key(row))
            return None if value is None else bytes(value)
        return None

    def key(self, row: int) -> str:
        """The key of a row, as it is stored. Raises IndexIncompatibleError if its record is missing."""
        with self._lock:
            value = self._txn.get(record_key(row))
            if value is None:
                raise self._damaged(f"record {row} is missing")
            return str(parse_value(bytes(value))["key"])

    def order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (n,) that sorts rows (n,) by their keys."""
        if self._has_columns:
            try:
                rank = self.columns.rank()
            except DamagedColumns:
                rank = self.mend_columns().rank()
            return rows if rank is None else rank[rows].astype(np.int64)
        keys = [self.key(row) for row in rows.tolist()]
        places: NDArray[np.int64] = np.empty(len(rows), np.int64)
        places[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        return places

    @property
    def _has_columns(self) -> bool:
        return "columns" in self.info.places or self._txn.get(b"columns") is not None

    def values(self) -> Iterator[tuple[int, bytes]]:
        """(row, JSON value) of every row, in order."""
        with self.environment.read() as txn:
            for key, value in scan_txn(txn, RECORD):
                yield _ROW.unpack(key[len(RECORD) :])[0], value

    def meta(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(bytes(self._txn.get(b"meta")))
        return body


def logical_checksum(environment: Environment) -> str:
    """sha256 over length-prefixed keys and values in key order: equal for equal content."""
    digest = hashlib.sha256()
    with environment.read(buffers=True) as txn, txn.cursor() as cursor:
        for key, value in cursor:
            digest.update(struct.pack(">IQ", len(key), len(value)))
            digest.update(key)
            digest.update(value)
    return digest.hexdigest()
