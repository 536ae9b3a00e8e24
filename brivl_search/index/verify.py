"""Checking an index from end to end: files, checksums, counts, and that items and rows belong together.

Needs neither faiss nor torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import BrivlSearchError, IndexIncompatibleError
from brivl_search.index import catalog, staging
from brivl_search.index.catalog import Entry, Meta
from brivl_search.index.lock import is_locked
from brivl_search.index.shard import Shard, logical_checksum
from brivl_search.index.store import scan_txn
from brivl_search.index.types import READABLE_VERSIONS, Modality, ShardInfo, VerifyReport

_SHOWN = 10  # lines of one kind of problem; then a count


def verify(directory: Path) -> VerifyReport:
    """Check every shard, row and item of the published generation; reads everything once or twice.

    Raises:
        IndexMissingError: there is no index.
    """
    directory = Path(directory)
    busy = is_locked(directory)
    problems: list[str] = []
    shards = rows = 0
    generation = -1
    named: set[str] = set()
    try:
        with catalog.reading(directory) as (txn, meta):
            generation = meta.generation
            for modality, part in meta.parts.items():
                named.update(shard.name for shard in part.shards)
                opened: dict[int, tuple[Shard, NDArray[np.bool_]]] = {}
                for info in part.shards:
                    shards += 1
                    removed = catalog.get_removed(txn, info.name)
                    if part.correction and catalog.get_lowered(txn, info.name, info.rows) is None:
                        problems.append(f"catalog.lmdb: the hub numbers of {info.name} are missing")
                    found, shard = _check_shard(directory, info, modality, meta, removed)
                    problems += found
                    if shard is not None:
                        live = np.ones(info.rows, dtype=bool)
                        live[removed] = False
                        opened[info.seq] = shard, live
                        rows += int(np.count_nonzero(live))
                problems += _check_quantizer(txn, meta, modality)
                problems += _check_correction(txn, meta, modality)
                broken = {info.seq for info in part.shards} - opened.keys()
                problems += _few(_check_items(txn, modality, opened, broken), f"catalog.lmdb: more {modality} items")
    except IndexIncompatibleError as error:
        problems.append(f"catalog.lmdb: {error}")
    except lmdb.Error as error:
        problems.append(f"catalog.lmdb: damaged ({error})")
    remains = ["a build is writing this index now"] if busy else list(_leftovers(directory, named))
    return VerifyReport(directory, generation, shards, rows, tuple(problems), tuple(remains))


def _few(lines: Iterator[str], more: str) -> list[str]:
    found = list(lines)
    if len(found) <= _SHOWN:
        return found
    return [*found[:_SHOWN], f"{more} like these: {len(found) - _SHOWN:,}"]


def _check_shard(
    directory: Path, info: ShardInfo, modality: Modality, meta: Meta, removed: NDArray[np.uint32]
) -> tuple[list[str], Shard | None]:
    """Problems of one shard file, and the shard if its contents can be trusted enough to be read."""
    path = directory / "shards" / info.name
    name = f"shards/{info.name}"
    try:
        if (size := path.stat().st_size) != info.bytes:
            return [f"{name}: {size:,} bytes, the catalog says {info.bytes:,}"], None
        with path.open("rb") as file:  # before anything is mapped: LMDB trusts its pages
            if hashlib.file_digest(file, "sha256").hexdigest() != info.file_sha256:
                return [f"{name}: the checksum differs, the file was changed after it was sealed"], None
        shard = Shard(directory, info, meta.encoder.dim, trusted=True)
    except FileNotFoundError:
        return [f"{name}: the file is missing"], None
    except (OSError, BrivlSearchError) as error:
        return [f"{name}: {error}"], None
    problems = []
    if logical_checksum(shard.environment) != info.checksum:
        problems.append(f"{name}: the checksum over its keys and values differs from the catalog's")
    quantizer = meta.parts[modality].quantizer
    said = shard.meta()
    expected = {
        "modality": modality,
        "rows": info.rows,
        "dim": meta.encoder.dim,
        "kind": info.kind,
        "fingerprint": meta.encoder.fingerprint,
        "quantizer": quantizer.sha256 if quantizer and info.kind == "ivfpq" else "",
    }
    if said.get("format_version") not in READABLE_VERSIONS:
        problems.append(f"{name}: its format version is {said.get('format_version')!r}")
    problems += [
        f"{name}: its {key} is {said.get(key)!r}, the catalog says {value!r}"
        for key, value in expected.items()
        if said.get(key) != value
    ]
    numbers = [row for row, _ in shard.values()]
    if numbers != list(range(info.rows)):
        problems.append(f"{name}: {len(numbers):,} records for {info.rows:,} rows")
        return problems, None
    if len(removed) and (removed.max() >= info.rows or (np.diff(removed.astype(np.int64)) <= 0).any()):
        problems.append(f"catalog.lmdb: the removed rows of {info.name} are not rows of it in order")
        return problems, None
    return problems, shard


def _check_quantizer(txn: Any, meta: Meta, modality: Modality) -> list[str]:
    quantizer = meta.parts[modality].quantizer
    if quantizer is None:
        return []
    raw = txn.get(catalog.quantizer_key(modality), b"")
    if hashlib.sha256(raw).hexdigest() != quantizer.sha256:
        return [f"catalog.lmdb: the trained quantizer of {modality} differs from its checksum"]
    return []


def _check_correction(txn: Any, meta: Meta, modality: Modality) -> list[str]:
    correction = meta.parts[modality].correction
    raw = txn.get(catalog.correction_key(modality), b"")
    if correction is not None and hashlib.sha256(raw).hexdigest() != correction.sha256:
        return [f"catalog.lmdb: the hub correction of {modality} differs from its checksum"]
    return []


def _check_items(
    txn: Any, modality: Modality, opened: dict[int, tuple[Shard, NDArray[np.bool_]]], broken: set[int]
) -> Iterator[str]:
    """Every item points to a live row of its own that says the same, and every live row has its item."""
    where = "catalog.lmdb"
    seen = {seq: np.zeros(len(live), dtype=bool) for seq, (_, live) in opened.items()}
    items = 0
    for lmdb_key, value in scan_txn(txn, catalog.item_prefix(modality)):
        entry = Entry.unpack(lmdb_key, value)
        items += 1
        if entry.seq in broken:
            continue
        if entry.seq not in opened:
            yield f"{where}: {modality} {entry.key!r} points to shard {entry.seq}, which the catalog does not name"
            continue
        shard, live = opened[entry.seq]
        if entry.row >= len(live) or not live[entry.row]:
            yield f"{where}: {modality} {entry.key!r} points to row {entry.row} of {shard.info.name}, which is not live"
            continue
        row = shard.entry(entry.row)
        if (row["key"], row["content"]) != (entry.key, entry.content):
            yield f"{where}: {modality} {entry.key!r} points to row {entry.row} of {shard.info.name}, another item's"
        if txn.get(catalog.hash_key(modality, entry.content, entry.seq, entry.row)) is None:
            yield f"{where}: {modality} {entry.key!r} is not found by its content hash"
        seen[entry.seq][entry.row] = True
    for seq, (shard, live) in opened.items():
        if orphans := int(np.count_nonzero(live & ~seen[seq])):
            yield f"shards/{shard.info.name}: {orphans:,} live rows belong to no item"
    if (hashes := sum(1 for _ in scan_txn(txn, catalog.hash_prefix(modality)))) != items:
        yield f"{where}: {hashes:,} content hashes for {items:,} {modality} items"


def _leftovers(directory: Path, named: set[str]) -> Iterator[str]:
    try:
        counts = staging.leftovers(directory)
    except (lmdb.Error, json.JSONDecodeError) as error:
        yield f"staging.lmdb: cannot be read ({error})"
    else:
        if counts["given"]:
            yield f"staging.lmdb: {counts['given']:,} vectors of an interrupted import, which begins anew"
        elif any(counts.values()):
            regions = f", regions of {counts['region']:,} pictures" if counts["region"] else ""
            yield (
                f"staging.lmdb: {counts['vector']:,} vectors and {counts['change']:,} changes{regions} of an "
                "interrupted build; the next build continues with them"
            )
    if (units := sum(1 for _ in (directory / "units").glob("*/*.npz"))) > 0:
        yield f"units/: {units:,} units of an interrupted build on a cluster; the next such build continues with them"
    if (directory / "shards").is_dir():
        for path in sorted((directory / "shards").iterdir()):
            if path.name not in named:
                yield f"shards/{path.name}: belongs to no generation; the next build removes it"
