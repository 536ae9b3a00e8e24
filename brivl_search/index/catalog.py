"""The catalog: the one mutable LMDB of an index. What its keys and values are, and how its state is read.

meta                           JSON: everything small (`Meta`)
quantizer/{image|text}         FAISS bytes of the trained, empty IndexIVFPQ all shards of the modality share
removed/{shard name}           little-endian uint32, sorted: rows of the shard that no longer count
correction/{image|text}        what scores are corrected for hubs with (`HubCorrection.to_bytes`); mostly absent
lowered/{shard name}           little-endian float32 (rows,): by how much, see `HubCorrection.of`
times/{shard name}             little-endian int64 (rows,): when each row's file changed, see `file_time`
item/{i|t}={key}               where an item lives and what its file looked like (`Entry`)
item/{i|t}~{sha256(key)}       the same for keys longer than 480 bytes
hash/{i|t}{content}\\0{seq}{row}  empty value: this live row holds the vector of this content
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.display import printable
from brivl_search.errors import IndexIncompatibleError, IndexMissingError, UsageError, system_error
from brivl_search.index import keys
from brivl_search.index.copied import copied
from brivl_search.index.meta import Meta as Meta
from brivl_search.index.meta import Part as Part
from brivl_search.index.meta import Quantizer as Quantizer
from brivl_search.index.meta import anew
from brivl_search.index.moves import Moves
from brivl_search.index.store import Environment, scan_txn
from brivl_search.index.types import (
    ORIGINS,
    UNKNOWN_TIME,
    ItemState,
    Modality,
    Origin,
)
from brivl_search.metrics.hub_correction import DamagedCorrection, HubCorrection

META = b"meta"
_ENTRY = struct.Struct(">IIQqH")
_ORIGIN_SHIFT = 14
_PLACE = struct.Struct(">II")


@dataclass(frozen=True)
class Entry:
    """An item in the catalog. `key` is stored in the value only where the LMDB key is a hash of it.

    The two highest bits of the content's length are the origin: they are 0 in what formats 1 to 3 wrote.
    """

    seq: int
    row: int
    size: int
    mtime_ns: int
    content: str
    key: str
    origin: Origin = "scan"

    def pack(self, lmdb_key: bytes) -> bytes:
        content = self.content.encode()
        length = len(content) | ORIGINS.index(self.origin) << _ORIGIN_SHIFT
        head = _ENTRY.pack(self.seq, self.row, self.size, self.mtime_ns, length) + content
        return head if lmdb_key[6:7] == b"=" else head + self.key.encode("utf-8", "surrogateescape")

    @classmethod
    def unpack(cls, lmdb_key: bytes, value: bytes) -> Entry:
        seq, row, size, mtime_ns, length = _ENTRY.unpack_from(value)
        origin = ORIGINS[length >> _ORIGIN_SHIFT]
        end = _ENTRY.size + (length & ((1 << _ORIGIN_SHIFT) - 1))
        raw = lmdb_key[7:] if lmdb_key[6:7] == b"=" else value[end:]
        content = value[_ENTRY.size : end].decode()
        return cls(seq, row, size, mtime_ns, content, raw.decode("utf-8", "surrogateescape"), origin)

    @classmethod
    def key_of(cls, lmdb_key: bytes, value: bytes) -> str:
        """The key alone, which is faster."""
        if lmdb_key[6:7] == b"=":
            return lmdb_key[7:].decode("utf-8", "surrogateescape")
        return cls.unpack(lmdb_key, value).key


def item_prefix(modality: Modality) -> bytes:
    return b"item/" + modality[0].encode()


def item_key(modality: Modality, key: str) -> bytes:
    return keys.to_lmdb(item_prefix(modality), key)


def hash_prefix(modality: Modality, content: str = "") -> bytes:
    head = b"hash/" + modality[0].encode()
    return head + content.encode() + b"\0" if content else head


def hash_key(modality: Modality, content: str, seq: int, row: int) -> bytes:
    return hash_prefix(modality, content) + _PLACE.pack(seq, row)


def split_hash_key(key: bytes) -> tuple[str, int, int]:
    """(content, seq, row) of a `hash/` key."""
    seq, row = _PLACE.unpack(key[-_PLACE.size :])
    return key[6 : -_PLACE.size - 1].decode(), seq, row


def scan_items(txn: Any, modality: Modality) -> Iterator[tuple[bytes, bytes]]:
    """(LMDB key, value) of every item; see `Entry.unpack`."""
    return scan_txn(txn, item_prefix(modality))


def states_under(
    scan: Callable[[bytes], Iterator[tuple[bytes, bytes]]], moves: Moves, modality: Modality, prefix: str
) -> Iterator[tuple[str, ItemState]]:
    """(key as it is here, state) of each published item whose key begins so here; in no particular order.

    Args:
        scan: LMDB's (key, value) pairs below a beginning.
        moves: of the index.
        modality: of the items.
        prefix: of the keys, as they are here.
    """
    for lmdb_key, value in _under(scan, moves, modality, prefix):
        entry = Entry.unpack(lmdb_key, value)
        key = moves.here(entry.key)
        if key.startswith(prefix):
            yield key, ItemState(entry.content, entry.size, entry.mtime_ns, entry.origin)


def keys_under(
    scan: Callable[[bytes], Iterator[tuple[bytes, bytes]]], moves: Moves, modality: Modality, prefix: str
) -> Iterator[str]:
    """As `states_under`, the keys alone."""
    for lmdb_key, value in _under(scan, moves, modality, prefix):
        key = moves.here(Entry.key_of(lmdb_key, value))
        if key.startswith(prefix):
            yield key


def _under(
    scan: Callable[[bytes], Iterator[tuple[bytes, bytes]]], moves: Moves, modality: Modality, prefix: str
) -> Iterator[tuple[bytes, bytes]]:
    """(LMDB key, value) of each item whose key may begin so."""
    ranges = {
        start: None
        for beginning in moves.beginnings(prefix)
        for start in keys.lmdb_ranges(item_prefix(modality), beginning)
    }
    for start in ranges:
        for lmdb_key, value in scan(start):
            yield bytes(lmdb_key), bytes(value)


def sample_below(txn: Any, root: str, count: int = 16) -> list[tuple[str, int]]:
    """Some (stored key, bytes) of the images of a root, as stored, spread over the alphabet."""
    prefix = item_prefix("image")
    found: list[tuple[str, int]] = []
    for end in dict.fromkeys(("/", os.sep, "::")):
        beginning = keys.to_lmdb(prefix, root + end) if len(os.fsencode(root)) < keys.SHORT else prefix + b"~"
        with txn.cursor() as cursor:
            more = cursor.set_range(beginning)
            while more and cursor.key().startswith(beginning) and len(found) < count:
                entry = Entry.unpack(cursor.key(), cursor.value())
                if entry.key.startswith(root + end):
                    found.append((entry.key, entry.size))
                more = cursor.next()
    return found


def removed_key(shard: str) -> bytes:
    return b"removed/" + shard.encode()


def times_key(shard: str) -> bytes:
    return b"times/" + shard.encode()


def file_time(size: int, mtime_ns: int) -> int:
    """When an item's file changed; `UNKNOWN_TIME` where it was not there, as of vectors that were imported alone."""
    return mtime_ns if size or mtime_ns else UNKNOWN_TIME


def get_times(txn: Any, shard: str, rows: int) -> NDArray[np.int64] | None:
    """int64 (rows,); None of a shard that was sealed by an older version."""
    raw = txn.get(times_key(shard))
    return None if raw is None or len(raw) != 8 * rows else np.frombuffer(raw, dtype="<i8").astype(np.int64)


def correction_key(modality: Modality) -> bytes:
    return b"correction/" + modality.encode()


def get_correction(txn: Any, modality: Modality, where: Path) -> HubCorrection:
    """The correction that `meta` speaks of.

    Raises:
        IndexIncompatibleError: it is not there, or damaged.
    """
    try:
        return HubCorrection.from_bytes(bytes(txn.get(correction_key(modality), b"")))
    except DamagedCorrection as error:
        raise IndexIncompatibleError(
            f"{where} is damaged (its hub correction of {modality}s: {error}): {anew(where.parent)}"
        ) from error


def lowered_key(shard: str) -> bytes:
    return b"lowered/" + shard.encode()


def get_lowered(txn: Any, shard: str, rows: int) -> NDArray[np.float32] | None:
    """float32 (rows,); None if there are none, or others."""
    raw = txn.get(lowered_key(shard))
    return None if raw is None or len(raw) != 4 * rows else np.frombuffer(raw, dtype="<f4").astype(np.float32)


def quantizer_key(modality: Modality) -> bytes:
    return b"quantizer/" + modality.encode()


def shard_name(modality: Modality, seq: int) -> str:
    return f"{modality}-{seq:06d}.lmdb"


def get_entry(txn: Any, modality: Modality, key: str) -> Entry | None:
    lmdb_key = item_key(modality, key)
    value = txn.get(lmdb_key)
    return None if value is None else Entry.unpack(lmdb_key, value)


def get_removed(txn: Any, shard: str) -> NDArray[np.uint32]:
    """Sorted uint32 (removed,)."""
    return np.frombuffer(txn.get(removed_key(shard), b""), dtype="<u4").astype(np.uint32)


def get_meta(txn: Any, where: Path) -> Meta | None:
    raw = txn.get(META)
    return None if raw is None else Meta.from_json(bytes(raw), where)


def places_of(txn: Any, modality: Modality, content: str) -> list[tuple[int, int]]:
    """(seq, row) of every live row holding this content."""
    return [split_hash_key(key)[1:] for key, _ in scan_txn(txn, hash_prefix(modality, content))]


def find_content(txn: Any, modality: Modality, content: str) -> tuple[int, int] | None:
    """(seq, row) of a live row holding this content."""
    prefix = hash_prefix(modality, content)
    with txn.cursor() as cursor:
        if cursor.set_range(prefix) and cursor.key().startswith(prefix):
            return split_hash_key(cursor.key())[1:]
    return None


def catalog_path(directory: Path) -> Path:
    return directory / "catalog.lmdb"


def _shared(path: Path) -> Environment:
    """The catalog, open so that no writer can pull pages away from under a reader. Raises OSError, lmdb.Error."""
    try:
        if os.access(path.parent, os.W_OK):
            return Environment(path, lock=True)
    except (lmdb.LockError, lmdb.ReadonlyError):
        pass
    except OSError as error:  # a lock file of another's; or a full disk and no lock file, so nobody is writing
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Environment(path)
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        return copied(path)
    except OSError:  # no room for a copy
        return Environment(path)


@contextmanager
def reading(directory: Path) -> Iterator[tuple[Any, Meta]]:
    """A read transaction on the catalog of a published index, and its meta.

    The environment is opened for this alone: with LMDB's reader table where that can be written, else as a checked copy
    (see `copied`).

    Raises:
        IndexMissingError: there is no index, or its first build has not finished.
        IndexIncompatibleError: the catalog is gone while shards are there, is damaged or of another format.
    """
    path = catalog_path(directory)
    try:
        there = path.is_file() and path.stat().st_size > 0
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (known := system_error(error)):
            raise known from error
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"`index` {printable(str(directory))}: {why}: give the folder of an index") from error
    if not there:
        if any((directory / "shards").glob("*.lmdb")) and not (directory / "staging.lmdb").exists():
            raise IndexIncompatibleError(
                f"half-deleted index: {path} is missing; build it again with: `build_index`",
                code="index_damaged",
                details={"index": str(directory)},
            )
        raise IndexMissingError(
            f"no index at {directory}: build one with: `build_index`",
            code="index_missing",
            details={"index": str(directory)},
        )
    try:
        environment = _shared(path)
    except (lmdb.Error, OSError) as error:
        if known := system_error(error):
            raise known from error
        raise IndexIncompatibleError(f"{path} cannot be opened ({error}): {anew(directory)}") from error
    try:
        with environment.read() as txn:
            meta = get_meta(txn, path)
            if meta is None:
                raise IndexMissingError(
                    f"the first build of {directory} has not finished: continue with: `build_index`",
                    code="index_missing",
                    details={"index": str(directory)},
                )
            yield txn, meta
    except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
        raise IndexIncompatibleError(f"{path} is damaged ({error}): {anew(directory)}") from error
    finally:
        environment.close()
