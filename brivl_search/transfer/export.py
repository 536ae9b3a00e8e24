"""Vectors and records out of an index, into a folder (the formats: `transfer.formats`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.atomic import appearing
from brivl_search.errors import IndexIncompatibleError, UsageError, not_written
from brivl_search.index import MODALITIES, IndexReader, Item, Modality
from brivl_search.index.hubs import read_correction
from brivl_search.transfer.formats import CORRECTION, Advance, Kind, arrow_modules
from brivl_search.transfer.vector_file import json_line


def export(directory: Path, out: Path, kind: Kind, advance: Advance | None = None) -> dict[Modality, int]:
    """Writes all live rows of an index into a new folder, which appears only when it is complete.

    Returns:
        Rows by modality.

    Raises:
        UsageError: `out` exists, or no folder of this name can be made there.
        IndexIncompatibleError: a shard is damaged.
        DependencyError: parquet without pyarrow.
    """
    if os.path.lexists(out):
        raise UsageError(f"{out} exists: name a folder that does not, or delete it")
    arrow = arrow_modules() if kind == "parquet" else None
    with IndexReader.open(directory) as reader:
        if reader.damage:
            raise IndexIncompatibleError(reader.damage[0])
        info = reader.info
        counts = {modality: info.of(modality).rows for modality in MODALITIES}
        with appearing(out) as (temporary,):
            try:
                temporary.mkdir(parents=True)
            except OSError as error:
                raise not_written(str(out), error, "folder") from None
            for modality in MODALITIES:
                if counts[modality]:
                    blocks = _told(reader.items(modality), advance)
                    _WRITERS[kind](temporary, modality, blocks, counts[modality], info.encoder.dim, arrow)
            about = {
                "format": kind,
                "encoder": info.encoder.name,
                "fingerprint": info.encoder.fingerprint,
                "dim": info.encoder.dim,
                "rows": counts,
                "sources": [asdict(source) for source in info.sources],
            }
            correction = info.image.correction and read_correction(directory, "image")
            if correction:
                (temporary / CORRECTION).write_bytes(correction.to_bytes())
            (temporary / "export.json").write_text(
                json.dumps(about, indent=2, ensure_ascii=True) + "\n", encoding="utf-8"
            )
    return counts


Blocks = Iterator[tuple[list[Item], NDArray[np.float16]]]


def _told(blocks: Blocks, advance: Advance | None) -> Blocks:
    for items, vectors in blocks:
        yield items, vectors
        if advance:
            advance(len(items))


def _line(item: Item) -> dict[str, Any]:
    return {
        "key": item.key,
        "content": item.content,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "origin": item.origin,
        "record": dict(item.record),
    }


def _write_npy(folder: Path, modality: Modality, blocks: Blocks, rows: int, dim: int, arrow: Any) -> None:
    head = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    with (
        (folder / f"{modality}.jsonl").open("w", encoding="utf-8") as lines,
        (folder / f"{modality}.npy").open("wb") as out,
    ):
        np.lib.format.write_array_header_1_0(out, head)  # not a memory map: a full disk is an error there, not SIGBUS
        for items, vectors in blocks:
            out.write(np.ascontiguousarray(vectors, "<f2").tobytes())
            lines.writelines(json_line(_line(item)) for item in items)


def _write_jsonl(folder: Path, modality: Modality, blocks: Blocks, rows: int, dim: int, arrow: Any) -> None:
    with (folder / f"{modality}.jsonl").open("w", encoding="utf-8") as lines:
        for items, vectors in blocks:
            for item, vector in zip(items, vectors.tolist(), strict=True):
                lines.write(json_line({**_line(item), "vector": vector}))


def _write_parquet(folder: Path, modality: Modality, blocks: Blocks, rows: int, dim: int, arrow: Any) -> None:
    pa, parquet = arrow
    text = pa.string()
    kinds = {"key": text, "content": text, "size": pa.int64(), "mtime_ns": pa.int64(), "origin": text}
    kinds["record"] = text
    schema = pa.schema({**kinds, "vector": pa.list_(pa.float16(), dim)})
    with parquet.ParquetWriter(folder / f"{modality}.parquet", schema) as writer:
        for items, vectors in blocks:
            columns: dict[str, list[Any]] = {name: [] for name in schema.names[:-1]}
            for item in items:
                line = _line(item)
                line["record"] = json.dumps(line["record"])  # ASCII: names that are not UTF-8 survive as escapes
                line["key"] = item.key if _is_utf8(item.key) else "\0" + json.dumps(item.key)
                for name, values in columns.items():
                    values.append(line[name])
            flat = pa.array(vectors.reshape(-1), type=pa.float16())
            arrays = [pa.array(columns[name], type=schema.field(name).type) for name in columns]
            writer.write_table(
                pa.Table.from_arrays([*arrays, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema)
            )


_WRITERS: dict[Kind, Callable[..., None]] = {"npy": _write_npy, "jsonl": _write_jsonl, "parquet": _write_parquet}


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
