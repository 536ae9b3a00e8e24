"""`build-index`: folders → decoded pictures → vectors → a committed index, resumable at any instant.

Files that the index already knows by size and time are not opened; content that it already holds is not embedded again,
whatever the file is called now. What is embedded is staged durably every two seconds, so a killed build loses seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brivl_search.corpus.captions import read_captions
from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.sources import DatasetChoice, Sources, find_sources, hint
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.errors import CorpusError
from brivl_search.index import MODALITIES, Codec, IndexType, IndexWriter, Item, Modality
from brivl_search.index.ivfpq import AUTO_THRESHOLD
from brivl_search.ingest.captions import CaptionStage
from brivl_search.ingest.forget import PASSING_REASONS, Forgetting
from brivl_search.ingest.report import BuildReport, Progress
from brivl_search.ingest.tuning import tuning_texts

FLUSH_SECONDS = 2.0
TUNING_QUERIES = 512


@dataclass(frozen=True)
class BuildOptions:
    """Choices of one build; the defaults are the command line's.

    `dataset` says how the paths are read that are datasets, `known_datasets` (by absolute path) goes before it.
    """

    index_type: IndexType | None = None
    include_hidden: bool = False
    workers: int | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    decode_timeout_s: float = 60.0
    caption_fields: tuple[str, ...] | None = None
    batch_size: int = 64
    shard_rows: int | None = None
    codec: Codec | None = None
    memory: int | None = None
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    known_datasets: Mapping[str, DatasetChoice] = field(default_factory=dict)


def build_index(
    folders: Sequence[Path | str], directory: Path, encoder: Encoder, options: BuildOptions, progress: Progress
) -> BuildReport:
    """Brings the index at `directory` in step with what lies under `folders`; other folders in it stay as they are.

    Args:
        folders: folders of images, and datasets: annotation files, tars and the like (see `corpus.readers`).

    Raises:
        UsageError: a folder does not exist, or a file is no dataset.
        CorpusError: no images under the folders; nothing is changed.
        IndexIncompatibleError: the index is of another encoder.
        BrivlSearchError: another build is writing the index.
    """
    progress.phase("scanning", None)
    found = _find(folders, options)
    if not found.scan.images:
        raise CorpusError(f"no images: {found.scan.describe_empty()}{hint(folders)}")
    with _writer(directory, encoder, options, "build", folders) as writer:
        build = _Build(writer, encoder, options, progress, found)
        return build.run(folders)


def add(
    paths: Sequence[Path | str], directory: Path, encoder: Encoder, options: BuildOptions, progress: Progress
) -> BuildReport:
    """Adds files and folders to the index (which need not exist yet) and forgets nothing.

    Args:
        paths: image files, folders of them, datasets, and caption files (*.jsonl) of images that are or become indexed.

    Raises:
        UsageError: a path does not exist or is none of these.
        CorpusError: there is nothing to add under the paths.
        The rest as `build_index`.
    """
    progress.phase("scanning", None)
    found = _find(paths, options, files=True)
    if not found.scan.images and not found.scan.captions:
        raise CorpusError(f"nothing to add: {found.scan.describe_empty()}{hint(paths)}")
    with _writer(directory, encoder, options, "add", paths) as writer:
        build = _Build(writer, encoder, options, progress, found, forget=False)
        return build.run([path for path in paths if os.path.isdir(path) and os.fspath(path) not in found.readers])


def _find(paths: Sequence[Path | str], options: BuildOptions, *, files: bool = False) -> Sources:
    return find_sources(
        paths,
        options.dataset,
        fields=options.caption_fields,
        known=options.known_datasets,
        include_hidden=options.include_hidden,
        files=files,
    )


def _writer(
    directory: Path, encoder: Encoder, options: BuildOptions, verb: str, paths: Sequence[Path | str]
) -> IndexWriter:
    """Killed and run again with the same paths, it goes on with what was staged."""
    return IndexWriter(
        directory,
        encoder_name=encoder.name,
        fingerprint=encoder.fingerprint,
        dim=encoder.dim,
        index_type=options.index_type,
        shard_rows=options.shard_rows,
        codec=options.codec,
        memory=options.memory,
        job="\0".join([verb, *sorted({os.path.abspath(path) for path in paths}), *_job(options.dataset)]),
    )


def _job(choice: DatasetChoice) -> list[str]:
    return [] if choice == DatasetChoice() else [repr(choice)]


class _Build:
    def __init__(
        self,
        writer: IndexWriter,
        encoder: Encoder,
        options: BuildOptions,
        progress: Progress,
        found: Sources,
        *,
        forget: bool = True,
    ) -> None:
        self.forget = forget
        self.writer, self.encoder, self.options, self.progress = writer, encoder, options, progress
        self.sources, self.scan = found, found.scan
        self.report = BuildReport(found=len(self.scan.images), skipped=list(self.scan.skipped))
        self.flushed = time.monotonic()
        self.started: float | None = None
        self.indexed = {image.path for image in self.scan.images}  # minus the skipped ones, as they are met
        self.gone = Forgetting(writer, found, self.report, self.indexed)

    def run(self, folders: Iterable[Path | str]) -> BuildReport:
        """Stages everything, remembers the folders, and commits."""
        self.roots(folders)
        self.images()
        self.captions()
        self.progress.phase("writing the index", None)
        self.report.commit = self.writer.commit(tuning_queries=self.tuning_queries(), progress=self.progress.note)
        return self.report

    def roots(self, folders: Iterable[Path | str]) -> None:
        known = {absolute: given for given, absolute in self.writer.roots}
        datasets = dict(self.writer.datasets)
        for path in folders:
            folder, absolute = os.fspath(path), os.path.abspath(path)
            known[absolute] = folder
            datasets.pop(absolute, None)
            if reader := self.sources.readers.get(folder):
                how = DatasetChoice(reader.name, reader.choice.split, reader.choice.images)
                datasets[absolute] = {**how.to_dict(), "covers": list(reader.covers)}
        self.writer.set_roots([(given, absolute) for absolute, given in known.items()], datasets)

    # -- images --------------------------------------------------------------------------------------------------

    def images(self) -> None:
        """Stages every new or changed picture and forgets the vanished ones."""
        todo: list[ImageFile] = []
        for file in self.scan.images:
            state = self.writer.known("image", file.path)
            if state is not None and (state.size, state.mtime_ns) == (file.size, file.mtime_ns):
                self.report.unchanged += 1
            else:
                todo.append(file)
        if self.forget:
            self.gone.images()
        if not todo:
            return
        workers = default_workers() if self.options.workers is None else self.options.workers
        self.progress.phase("images", len(todo))
        waiting: list[Decoded] = []  # decoded and not yet embedded, at most a batch of new contents
        fresh: set[str] = set()
        for decoded in decode_all(
            todo,
            self.encoder.pixels,
            workers=workers,
            max_megapixels=self.options.max_megapixels,
            timeout_s=self.options.decode_timeout_s,
            ahead=max(4 * self.options.batch_size, 256),
            known_hashes=self._known_hashes,
        ):
            if decoded.reason:
                self._skip(decoded)
                continue
            waiting.append(decoded)
            if not decoded.known and not self.writer.has_vector("image", decoded.sha256):
                fresh.add(decoded.sha256)
            if len(fresh) >= self.options.batch_size or len(waiting) >= 8 * self.options.batch_size:
                self._embed(waiting, fresh)
        self._embed(waiting, fresh)
        self.writer.flush()
        if self.started is not None:
            self.report.embed_seconds = time.perf_counter() - self.started

    def _known_hashes(self, file: ImageFile) -> tuple[str, ...]:
        state = self.writer.known("image", file.path)
        return (state.content,) if state is not None and state.size == file.size else ()

    def _embed(self, waiting: list[Decoded], fresh: set[str]) -> None:
        """Embeds each new content among `waiting` once, stages all of them, and empties both collections."""
        first = {one.sha256: one for one in reversed(waiting) if one.sha256 in fresh}
        if first:
            if self.started is None:
                self.progress.note("loading the encoder")
                self.encoder.warm_up()  # start-up, and not needed where nothing is new
                self.progress.note("images")
                self.started = time.perf_counter()
            pixels = np.stack([one.pixels for one in first.values() if one.pixels is not None])
            origins = [Origin(one.file.path, one.width, one.height) for one in first.values()]
            self.writer.stage_vectors("image", list(first), encode_pictures(self.encoder, pixels, origins))
        for one in waiting:
            item = Item(one.file.path, one.sha256, one.file.size, one.file.mtime_ns, self._record(one))
            self.writer.put("image", item)
        self.report.embedded += len(first)
        self.report.reused += len(waiting) - len(first)
        self.progress.advance(len(waiting))
        waiting.clear()
        fresh.clear()
        self._flush_now_and_then()

    def _record(self, one: Decoded) -> dict[str, object]:
        """What users see of an image; one that was not decoded, because its content is known, keeps what it had."""
        if one.known and (before := self.writer.record("image", one.file.path)) is not None:
            return before
        record: dict[str, object] = {"path": one.file.path, "width": one.width, "height": one.height}
        return record | ({"taken": one.taken} if one.taken else {})

    def _flush_now_and_then(self) -> None:
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.writer.flush()
            self.flushed = time.monotonic()

    def _skip(self, decoded: Decoded) -> None:
        path = decoded.file.path
        self.report.skipped.append(Skipped(path, decoded.reason, decoded.detail))
        self.progress.advance(1)
        if self.writer.known("image", path) is None:
            self.indexed.discard(path)
        elif decoded.reason in PASSING_REASONS:
            self.report.kept_unreadable += 1
        else:
            self.indexed.discard(path)
            self.writer.remove("image", path)

    # -- captions ------------------------------------------------------------------------------------------------

    def captions(self) -> None:
        """Stages the captions of indexed images as texts and forgets those that are gone."""
        stage = CaptionStage(
            self.writer,
            self.encoder,
            self.progress,
            self.report,
            indexed=self.indexed,
            forget=self.forget,
            flush=self._flush_now_and_then,
        )
        for file in self.scan.captions:
            stage.read(read_captions(file, self.options.caption_fields))
        for reader in self.sources.readers.values():
            stage.read(reader.lines())
        if self.forget:
            self.gone.captions(stage)
        stage.set_fields(self.gone.kept.__contains__, self.gone.shared)
        stage.stage()

    def tuning_queries(self) -> dict[Modality, np.ndarray]:
        """Real queries of the other modality for tuning IVF-PQ: the index's own captions and pictures.

        Where there are no captions, a list of plain Chinese and English queries stands in for the texts.
        """
        if self.options.index_type == "exact":
            return {}
        if self.options.index_type != "ivfpq":  # asked for by name, it may be new to an unchanged folder
            changed = any(self.writer.pending_rows(modality) for modality in MODALITIES)
            if not changed or max(len(self.indexed), self.report.captions) < AUTO_THRESHOLD:
                return {}
        self.progress.note("choosing nprobe and the number re-ranked on real queries")
        texts = self.writer.sample("text", TUNING_QUERIES)
        if len(texts) < 64:
            texts = self.encoder.encode_texts(tuning_texts())
        return {"image": texts, "text": self.writer.sample("image", TUNING_QUERIES)}
