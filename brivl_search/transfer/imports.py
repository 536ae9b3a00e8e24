"""Vectors and records into an index: an export's folder, or an array and records that were made elsewhere."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from brivl_search.display import printable
from brivl_search.encoders import hub_corrections
from brivl_search.errors import CorpusError, UsageError
from brivl_search.index import MODALITIES, CommitReport, EncoderInfo, IndexReader, IndexWriter, Item, Modality
from brivl_search.index.ivfpq import AUTO_THRESHOLD
from brivl_search.index.sources import Source, of_roots
from brivl_search.ingest.tuning import tuning_queries
from brivl_search.metrics.hub_correction import DamagedCorrection, HubCorrection
from brivl_search.transfer.formats import BLOCK, CORRECTION, Advance, Kind
from brivl_search.transfer.readers import NO_ARRAY, Given, array_of, exported, foreign

SAME = 0.999  # cosine from which on two vectors of one content are the same but for rounding
_EVERY = 3  # of the tuning queries: 120 are enough, and are embedded without torch
_ROUNDING = 1e-3  # what rounding to float16 may change of a unit vector's length, at most


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
        if kind not in get_args(Kind):
            raise ValueError(f"format {kind!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{source} is no folder that export wrote (export.json: {error})") from error
    rows = {m: exported(source, kind, m, counts[m], encoder.dim) for m in MODALITIES if counts[m]}
    return _take(directory, encoder, rows, encode, advance, sources, _correction(source, encoder))


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
        array = array_of(vectors)
    except NO_ARRAY as error:
        raise UsageError(f"`vectors` {vectors}: {error}") from error
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] != encoder.dim:
        raise UsageError(
            f"`vectors` {vectors} is {array.dtype} {array.shape}; encoder {encoder.name} makes float "
            f"(rows, {encoder.dim})"
        )
    source = Source("import", str(vectors.absolute()), str(vectors), {"records": str(records.absolute())})
    rows = {modality: foreign(vectors, records, modality, len(array))}
    return _take(directory, encoder, rows, encode, advance, [source])


def _correction(folder: Path, encoder: EncoderInfo) -> HubCorrection | None:
    """The hub correction of the index that was exported; a new index takes it."""
    path = folder / CORRECTION
    try:
        found = HubCorrection.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, DamagedCorrection) as error:
        raise CorpusError(f"{path} is no hub correction ({error}): delete it, or export again") from None
    if found.references.shape[1] != encoder.dim:
        raise CorpusError(f"{path} is of another encoder: delete it, or export again")
    return found


def _older(about: Mapping[str, Any]) -> tuple[Source, ...]:
    """What an export of 0.2 or older says of the index's folders."""
    return of_roots(about.get("folders", ()), about.get("datasets", {}))


def _take(
    directory: Path,
    encoder: EncoderInfo,
    rows: dict[Modality, Given],
    encode: Callable[[Sequence[str]], np.ndarray],
    advance: Advance | None,
    sources: Sequence[Source] = (),
    correction: HubCorrection | None = None,
) -> CommitReport:
    """Stages all rows and commits. What fails or is killed leaves nothing: the next try begins anew (no `job`)."""
    with IndexWriter(
        directory, encoder_name=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim, job=""
    ) as writer:
        if not writer.generation:
            writer.correct_hubs("image", hub_corrections.saved(encoder.fingerprint) or correction)
        known = {source.path for source in writer.sources}
        writer.set_sources([*writer.sources, *(source for source in sources if source.path not in known)])
        for modality, given in rows.items():
            stage = _Stage(writer, modality, given)
            stream = given.read()
            while block := list(islice(stream, BLOCK)):
                stage.take(block)
                if advance:
                    advance(len(block))
            given.check_unchanged()
        large = any(writer.pending_rows(m) for m in MODALITIES) and _may_be_large(writer, directory)
        return writer.commit(tuning_queries=tuning_queries(writer, encode, every=_EVERY) if large else {})


class _Stage:
    """Stages the rows of a modality; a content, or a key, on two lines must mean the same on both."""

    def __init__(self, writer: IndexWriter, modality: Modality, given: Given) -> None:
        self.writer, self.modality, self.given = writer, modality, given
        self.done = 0
        self._lines = array("I")  # of the vectors that were staged
        self._before = 0  # vectors of the other modality

    def take(self, block: Sequence[tuple[Item, NDArray[Any]]]) -> None:
        """Stages some rows. Raises CorpusError: a vector has no direction, or two lines contradict each other."""
        vectors = self._unit(np.stack([vector for _, vector in block]))
        fresh: dict[str, int] = {}  # content → position in the block
        for at, (item, _) in enumerate(block):
            if (first := fresh.get(item.content)) is not None:
                before, line = vectors[first], self.done + first + 1
            elif (number := self.writer.given_number(self.modality, item.content)) is not None:
                before, line = self._vector(item.content), self._lines[number - self._before]
            else:
                fresh[item.content] = at
                continue
            if float(before @ vectors[at]) < SAME:
                what = f"one content ({item.content[:16]}) with two vectors"
                raise self._contradiction(line, self.done + at + 1, what)
        rows = list(fresh.values())
        self.writer.stage_vectors(self.modality, list(fresh), vectors[rows], replace=True)
        if rows and not self._lines:
            self._before = self.writer.given_number(self.modality, next(iter(fresh))) or 0
        self._lines.extend(self.done + at + 1 for at in rows)
        for number, (item, _) in enumerate(block, start=self.done + 1):
            state = self.writer.known(self.modality, item.key)
            if state is not None and state.content != item.content and self.writer.is_staged(self.modality, item.key):
                before_it = self.writer.given_number(self.modality, state.content)
                line = number if before_it is None else self._lines[before_it - self._before]
                raise self._contradiction(line, number, f"one key ({printable(item.key)}) with two contents")
            self.writer.put(self.modality, item)
        self.done += len(block)

    def _vector(self, content: str) -> NDArray[np.float32]:
        stored = self.writer.vector(self.modality, content)
        assert stored is not None
        return stored.astype(np.float32)

    def _unit(self, given: NDArray[Any]) -> NDArray[np.float32]:
        largest = np.abs(given).max(axis=1, keepdims=True).astype(np.float64)
        if bad := np.flatnonzero(~(np.isfinite(largest[:, 0]) & (largest[:, 0] > 0))).tolist():
            number = self.done + bad[0] + 1
            raise CorpusError(
                f"{self.given.place(number)}: {self.modality} row {number:,} has no direction (zero or not finite)"
            )
        vectors = given / largest  # first, or squares of what is very large or small leave the range of numbers
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if given.dtype == np.float16:  # rows of an index: they stay as they are
            same = np.abs(lengths * largest - 1) < _ROUNDING
            lengths = np.where(same, 1 / largest, lengths)
        unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
        return unit

    def _contradiction(self, first: int, second: int, what: str) -> CorpusError:
        return CorpusError(
            f"{self.given.place(first)} and line {second}: {what}: leave out the wrong line, or correct its `content`"
        )


def _may_be_large(writer: IndexWriter, directory: Path) -> bool:
    rows = max(writer.pending_rows(modality) for modality in MODALITIES)
    if writer.generation:
        with IndexReader.open(directory) as reader:
            rows += max(reader.count(modality) for modality in MODALITIES)
    return rows >= AUTO_THRESHOLD
