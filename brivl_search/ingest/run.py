"""`build-index`: folders → decoded pictures → vectors → a committed index, resumable at any instant.

Files that the index already knows by size and time are not opened; content that it already holds is not embedded again,
whatever the file is called now. What is embedded is staged durably every two seconds, so a killed build loses seconds.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from brivl_search.corpus.captions import read_captions
from brivl_search.corpus.sources import DatasetChoice, Sources, find_sources, hint
from brivl_search.encoders.base import Encoder
from brivl_search.errors import CorpusError
from brivl_search.index import MODALITIES, IndexWriter, Modality
from brivl_search.index.ivfpq import AUTO_THRESHOLD
from brivl_search.ingest.captions import CaptionStage
from brivl_search.ingest.fields import missing_fields
from brivl_search.ingest.forget import Forgetting
from brivl_search.ingest.images import ImageStage
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport, Progress
from brivl_search.ingest.tuning import tuning_queries

FLUSH_SECONDS = 2.0


def build_index(
    folders: Sequence[Path | str], directory: Path, encoder: Encoder, options: BuildOptions, progress: Progress
) -> BuildReport:
    """Brings the index at `directory` in step with what lies under `folders`; other folders in it stay as they are.

    Args:
        folders: folders of images, and datasets: annotation files, tars and the like (see `corpus.readers`).

    Raises:
        UsageError: a folder does not exist, a file is no dataset, or no line has a caption field that was asked for.
        CorpusError: no images under the folders; nothing is changed.
        IndexIncompatibleError: the index is of another encoder.
        BrivlSearchError: another build is writing the index.
    """
    progress.phase("scanning", None)
    found = _find(folders, options)
    if not found.scan.images:
        raise CorpusError(f"no images: {found.scan.describe_empty()}{hint(folders)}")
    missing = missing_fields(found, options.caption_fields, options.encoding)
    with _writer(directory, encoder, options, "build", folders) as writer:
        build = _Build(writer, encoder, options, progress, found)
        build.report.missing_fields = missing
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
    missing = missing_fields(found, options.caption_fields, options.encoding)
    with _writer(directory, encoder, options, "add", paths) as writer:
        build = _Build(writer, encoder, options, progress, found, forget=False)
        build.report.missing_fields = missing
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
        self.report = BuildReport(
            found=len(self.scan.images), skipped=list(self.scan.skipped), unread=Counter(self.scan.unread)
        )
        self.flushed = time.monotonic()
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
                choice = reader.choice
                how = DatasetChoice(reader.name, choice.split, choice.images, choice.encoding)
                datasets[absolute] = {**how.to_dict(), "covers": list(reader.covers)}
        self.writer.set_roots([(given, absolute) for absolute, given in known.items()], datasets)

    def flush_now_and_then(self) -> None:
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.writer.flush()
            self.flushed = time.monotonic()

    def images(self) -> None:
        """Stages every new or changed picture and forgets the vanished ones."""
        stage = ImageStage(
            self.writer,
            self.encoder,
            self.progress,
            self.report,
            self.options,
            indexed=self.indexed,
            flush=self.flush_now_and_then,
        )
        todo = stage.changed(self.scan.images)
        if self.forget:
            self.gone.images()
        stage.stage(todo)

    def captions(self) -> None:
        """Stages the captions of indexed images as texts and forgets those that are gone."""
        stage = CaptionStage(
            self.writer,
            self.encoder,
            self.progress,
            self.report,
            indexed=self.indexed,
            forget=self.forget,
            flush=self.flush_now_and_then,
        )
        for file in self.scan.captions:
            stage.read(read_captions(file, self.options.caption_fields, self.options.encoding))
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
        return tuning_queries(self.writer, self.encoder.encode_texts)
