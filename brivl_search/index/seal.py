"""Writing a shard: once, in as little memory as two copies of its vectors take."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import BrivlSearchError
from brivl_search.index import ivfpq, places
from brivl_search.index.columns import ColumnBuilder, keys_of
from brivl_search.index.shard import (
    BLOCK,
    KEPT,
    PATH_NAMES,
    RECORD,
    logical_checksum,
    parse_value,
    record_key,
    regions_key,
    row_sum,
)
from brivl_search.index.store import Environment, fsync_directory
from brivl_search.index.types import FORMAT_VERSION, Codec, Modality, ShardInfo, ShardKind

_TOGETHER = 4096  # rows written in one transaction
Row = tuple[bytes, NDArray[np.float16], bytes | None]  # the JSON value, the vector (dim,), regions if they are kept


def _put(key: bytes, value: bytes | memoryview, txn: Any) -> None:
    txn.put(key, value)


def seal(
    directory: Path,
    name: str,
    rows: Iterator[Row],
    count: int,
    *,
    modality: Modality,
    seq: int,
    dim: int,
    fingerprint: str,
    trained: bytes | None,
    nlist: int = 0,
    m: int = 0,
    codec: Codec = "pq8",
    regions: str = "",
) -> ShardInfo:
    """Write `count` rows as a shard: to a temporary file, fsynced, then renamed into place.

    Args:
        directory: the index; the file becomes DIR/shards/NAME.
        name: file name.
        rows: at least `count` of them; exactly `count` are taken.
        count: rows of this shard.
        modality: stored in the shard's meta.
        seq: the number in the name.
        dim: of the vectors.
        fingerprint: of the encoder.
        trained: the modality's trained quantizer, None for an exact shard.
        nlist: of the trained quantizer.
        m: of the trained quantizer.
        codec: of the trained quantizer.
        regions: fingerprint of the matcher whose regions rows have.

    Returns:
        The catalog's description of the shard.
    """
    folder = directory / "shards"
    temporary = folder / f".tmp-{name}"
    temporary.unlink(missing_ok=True)
    environment = Environment(temporary, writable=True, durable=False)
    try:
        vectors, sums, columns, kept = _write_records(environment, name, rows, count, modality, dim)
        meta: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "modality": modality,
            "rows": count,
            "dim": dim,
            "kind": "exact" if trained is None else "ivfpq",
            "fingerprint": fingerprint,
            "quantizer": "" if trained is None else hashlib.sha256(trained).hexdigest(),
        }
        values = {b"sums": sums.tobytes(), b"columns": columns}
        if kept.any():
            meta["regions"] = {"fingerprint": regions, "rows": int(np.count_nonzero(kept))}
            values[KEPT] = np.packbits(kept).tobytes()
        values[b"meta"] = json.dumps(meta, sort_keys=True).encode()
        del columns
        for key in list(values):
            environment.write(partial(_put, key, values.pop(key)))
        environment.write(partial(_put, b"vectors", vectors.reshape(-1).view(np.uint8).data))
        del vectors
        environment = _anew(environment)
        if trained is not None:
            for part, value in _coded(environment, trained, count, dim):
                environment.write(partial(_put, part.encode(), value.data))
            environment = _anew(environment)
        environment.env.sync(True)
        checksum = logical_checksum(environment)
        where = places.locate(environment, temporary)
    finally:
        environment.close()
    with temporary.open("r+b") as file:  # Windows syncs only what may be written
        file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    status = temporary.stat()
    temporary.replace(folder / name)
    fsync_directory(folder)
    kind: ShardKind = "exact" if trained is None else "ivfpq"
    return ShardInfo(
        name, seq, count, status.st_size, checksum, file_sha256, kind,
        nlist if trained else 0, m if trained else 0, status.st_mtime_ns, codec, where,
    )  # fmt: skip


def _write_records(
    environment: Environment, name: str, rows: Iterator[Row], count: int, modality: Modality, dim: int
) -> tuple[NDArray[np.float16], NDArray[np.uint32], bytes, NDArray[np.bool_]]:
    """Writes the records and regions of `count` rows.

    Returns:
        Their vectors (count, dim), their sums (count,), the columns, and which have regions (count,).
    """
    columns = ColumnBuilder(PATH_NAMES[modality])
    vectors: NDArray[np.float16] = np.empty((count, dim), dtype="<f2")
    sums: NDArray[np.uint32] = np.empty(count, dtype="<u4")
    kept: NDArray[np.bool_] = np.zeros(count, bool)
    filled = 0
    while part := list(islice(rows, min(_TOGETHER, count - filled))):
        start = filled
        for value, vector, regions in part:
            kept[filled] = regions is not None
            vectors[filled] = vector
            sums[filled] = row_sum(vectors[filled], value)
            body = parse_value(value)
            columns.add(body["key"], body["record"])
            filled += 1

        def put(txn: Any, part: list[Row] = part, start: int = start) -> None:
            for offset, (value, _, regions) in enumerate(part):
                txn.put(record_key(start + offset), value)
                if regions is not None:
                    txn.put(regions_key(start + offset), regions)

        environment.write(put)
    if filled != count:
        raise BrivlSearchError(f"{name}: {filled} rows instead of {count}: the index changed under the build")
    raw = columns.to_bytes(lambda: keys_of(value for _, value in environment.scan(RECORD)))
    return vectors, sums, raw, kept


def _coded(environment: Environment, trained: bytes, count: int, dim: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The parts of the FAISS index over the vectors that were written."""
    with environment.read(buffers=True) as txn:
        vectors = np.frombuffer(txn.get(b"vectors"), dtype="<f2").reshape(count, dim)
        built = ivfpq.build(trained, (vectors[at : at + BLOCK].astype(np.float32) for at in range(0, count, BLOCK)))
        del vectors
    for key in list(built):
        yield key, built.pop(key)


def _anew(environment: Environment) -> Environment:
    """The same file, opened anew: what LMDB and its map hold in memory is given back."""
    environment.close()
    return Environment(environment.path, writable=True, durable=False)
