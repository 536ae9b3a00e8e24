"""Vectors and records into an index: an export's folder, or an array and records that were made elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import MODALITIES, CommitReport, EncoderInfo, IndexReader, IndexWriter, Item, Modality
from brivl_search.index.ivfpq import AUTO_THRESHOLD
from brivl_search.index.keys import caption_key
from brivl_search.index.sources import Source, of_roots
from brivl_search.index.types import ORIGINS, Origin
from brivl_search.ingest.tuning import tuning_queries
from brivl_search.transfer import lines
from brivl_search.transfer.formats import BLOCK, Advance, Rows, arrow_modules


def import_folder(
    source: Path, directory: Path, encode: Callable[[Sequence[str]], np.ndarray], advance: Advance | None = None
) -> CommitReport:
    """Takes an export into an index, which need not exist yet. Items of the same key are replaced.

    Args:
        source: a folder that `export` wrote.
        directory: the index.
        encode: texts → vectors of the export's encoder; called only if IVF-PQ is to be tuned and there are no captions.

    Raises:
        UsageError: the folder is no export.
        CorpusError: its files do not fit together.
        IndexIncompatibleError: the index is of another encoder.
    """
    try:
        about = json.loads((source / "export.json").read_text("utf-8"))
        encoder = EncoderInfo(about["encoder"], about["fingerprint"], int(about["dim"]))
        kind, counts = about["format"], {m: int(about["rows"][m]) for m in MODALITIES}
        sources = [Source.of(one) for one in about["sources"]] if "sources" in about else _older(about)
        reader = _READERS[kind]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{source} is no folder that export wrote (export.json: {error})") from error
    rows = {m: reader(source, m, counts[m], encoder.dim) for m in MODALITIES if counts[m]}
    return _take(directory, encoder, rows, f"import\0{source.absolute()}", encode, advance, sources)


def import_vectors(
    vectors: Path,
    records: Path,
    modality: Modality,
    directory: Path,
    encoder: EncoderInfo,
    encode: Callable[[Sequence[str]], np.ndarray],
    advance: Advance | None = None,
) -> CommitReport:
    """Takes vectors that were made elsewhere with `encoder`.

    Args:
        vectors: a .npy file, float16 or float32 (rows, dim); brought to unit length.
        records: JSON lines, line k for row k. An image: `path` (relative to this file), and whatever else shall be
            kept. A text: `text`, its picture `image`, its `field` ("captions" where there is none). Optional: `key`,
            and `content`, a hash of the content, by which vectors are reused (the file's own sha256, as
            `build-index` computes it; taken of the file where it is there).
        modality: of all rows.
        directory: the index.
        encoder: that made the vectors.
        encode: as of `import_folder`.
        advance: told how many rows are done.

    Raises:
        UsageError: a file is missing or of another form.
        CorpusError: rows and lines do not fit together; file and line are named.
    """
    try:
        array = _mapped(vectors)
    except _NO_ARRAY as error:
        raise UsageError(f"`vectors` {vectors}: {error}") from error
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] != encoder.dim:
        raise UsageError(
            f"`vectors` {vectors} is {array.dtype} {array.shape}; encoder {encoder.name} makes float "
            f"(rows, {encoder.dim})"
        )
    if not records.is_file():
        raise UsageError(f"`records` {records}: no such file")

    def items() -> Rows:
        for number, (body, vector) in enumerate(_paired(records, array), start=1):
            yield _foreign(body, modality, records, number, vector), vector

    job = f"import\0{vectors.absolute()}\0{records.absolute()}"
    source = Source("import", str(vectors.absolute()), str(vectors), {"records": str(records.absolute())})
    return _take(directory, encoder, {modality: items()}, job, encode, advance, [source])


def _older(about: Mapping[str, Any]) -> tuple[Source, ...]:
    """What an export of 0.2 or older says of the index's folders."""
    return of_roots(about.get("folders", ()), about.get("datasets", {}))


def _foreign(body: dict[str, Any], modality: Modality, records: Path, number: int, vector: NDArray[Any]) -> Item:
    name = "path" if modality == "image" else "text"
    where = f"{printable(str(records))}:{number}"
    if not isinstance(body.get(name), str) or not body[name]:
        raise CorpusError(f"{where}: no `{name}`")
    lines.texts_of(body, ("key", "path") if modality == "image" else ("key", "image", "field"), where)
    folder = records.absolute().parent
    content = lines.content_of(body, where)
    body.pop("content", None)
    key = body.pop("key", None)
    try:
        if modality == "text":
            image = os.path.normpath(folder / body["image"]) if body.get("image") else ""
            record = {"field": "captions", **body, "image": image}
            content = content or hashlib.sha256(body["text"].encode("utf-8")).hexdigest()
            name = key or caption_key(image, record["field"], content)
            return Item(name, content, record=record, origin="import")
        path = os.path.normpath(folder / body["path"])
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


def _paired(records: Path, array: NDArray[Any]) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
    """Line k and row k; another number of lines than rows is an error."""
    number = 0
    with _opened(records) as raw_lines:
        for number, raw in enumerate(raw_lines, start=1):
            body = lines.parse(raw, f"{printable(str(records))}:{number}")
            if not isinstance(body, dict):
                raise CorpusError(f"{printable(str(records))}:{number}: not a JSON object")
            if number > len(array):
                raise CorpusError(f"{records} has more lines than the {len(array):,} rows of the vectors")
            yield body, array[number - 1]
    if number != len(array):
        raise CorpusError(f"{records} has {number:,} lines for {len(array):,} rows of vectors")


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
        size, mtime_ns = (lines.number_of(body, name, where) for name in ("size", "mtime_ns"))
        return Item(body["key"], content, size, mtime_ns, body["record"], origin)
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{where}: not a line that export wrote ({error!r})") from error


_NO_ARRAY = (OSError, ValueError, EOFError, BadZipFile)


def _mapped(path: Path) -> NDArray[Any]:
    """The array of a .npy file, where it lies. Raises one of `_NO_ARRAY`."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("several arrays (.npz): give one, as np.save writes it")
    return array


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CorpusError(f"{printable(str(path))}: {error.strerror or error}") from error


def _read_npy(folder: Path, modality: Modality, rows: int, dim: int) -> Rows:
    try:
        array = _mapped(folder / f"{modality}.npy")
    except _NO_ARRAY as error:
        raise CorpusError(f"{folder / f'{modality}.npy'}: {error}") from error
    if array.shape != (rows, dim):
        raise CorpusError(f"{folder / f'{modality}.npy'} is {array.shape}, export.json says {(rows, dim)}")
    where = folder / f"{modality}.jsonl"
    for number, (body, vector) in enumerate(_paired(where, array), start=1):
        yield _item(body, f"{where}:{number}"), vector


def _read_jsonl(folder: Path, modality: Modality, rows: int, dim: int) -> Rows:
    where = folder / f"{modality}.jsonl"
    number = 0
    with _opened(where) as raw_lines:
        for number, raw in enumerate(raw_lines, start=1):
            body = lines.parse(raw, f"{where}:{number}")
            try:
                vector = np.array(body["vector"], dtype=np.float32)
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise CorpusError(f"{where}:{number}: not a line that export wrote ({error!r})") from error
            if vector.shape != (dim,):
                raise CorpusError(f"{where}:{number}: its `vector` is no list of {dim} numbers")
            yield _item(body, f"{where}:{number}"), vector
    if number != rows:
        raise CorpusError(f"{where} has {number:,} lines, export.json says {rows:,}")


def _read_parquet(folder: Path, modality: Modality, rows: int, dim: int) -> Rows:
    _, parquet = arrow_modules()
    where = folder / f"{modality}.parquet"
    try:
        for batch in parquet.ParquetFile(where).iter_batches(batch_size=BLOCK):
            vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            for line, vector in zip(batch.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
                line["record"] = lines.parse(line["record"], str(where))
                if line["key"].startswith("\0"):  # a name that is not UTF-8
                    line["key"] = lines.parse(line["key"][1:], str(where))
                yield _item(line, str(where)), vector
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # pyarrow's own are ValueErrors
        raise CorpusError(f"{where}: not a file that export wrote ({' '.join(str(error).split())[:200]})") from error


_READERS: dict[str, Callable[[Path, Modality, int, int], Rows]] = {
    "npy": _read_npy,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}


def _take(
    directory: Path,
    encoder: EncoderInfo,
    rows: dict[Modality, Rows],
    job: str,
    encode: Callable[[Sequence[str]], np.ndarray],
    advance: Advance | None,
    sources: Sequence[Source] = (),
) -> CommitReport:
    with IndexWriter(
        directory, encoder_name=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim, job=job
    ) as writer:
        known = {source.path for source in writer.sources}
        writer.set_sources([*writer.sources, *(source for source in sources if source.path not in known)])
        for modality, stream in rows.items():
            done = 0
            while block := list(islice(stream, BLOCK)):
                vectors = np.stack([vector for _, vector in block]).astype(np.float32)
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                if bad := np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0))).tolist():
                    raise CorpusError(f"{modality} row {done + bad[0] + 1:,} has no direction (zero or not finite)")
                writer.stage_vectors(modality, [item.content for item, _ in block], vectors / lengths)
                for item, _ in block:
                    writer.put(modality, item)
                done += len(block)
                if advance:
                    advance(len(block))
            writer.flush()
        large = any(writer.pending_rows(m) for m in MODALITIES) and _may_be_large(writer, directory)
        return writer.commit(tuning_queries=tuning_queries(writer, encode) if large else {})


def _may_be_large(writer: IndexWriter, directory: Path) -> bool:
    rows = max(writer.pending_rows(modality) for modality in MODALITIES)
    if writer.generation:
        with IndexReader.open(directory) as reader:
            rows += max(reader.count(modality) for modality in MODALITIES)
    return rows >= AUTO_THRESHOLD
