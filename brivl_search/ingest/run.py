"""`build-index`: folders → decoded pictures → vectors → a committed index, resumable at any instant.

Files that the index already knows by size and time are not opened; content that it already holds is not embedded again,
whatever the file is called now. What is embedded is staged durably every two seconds, so a killed build loses seconds.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from brivl_search.corpus.captions import read_captions
from brivl_search.corpus.sources import DatasetChoice, Sources, find_sources, hint
from brivl_search.corpus.walk import Scan, add_named
from brivl_search.display import printable
from brivl_search.encoders import hub_corrections
from brivl_search.encoders.base import Encoder, encode_queries
from brivl_search.encoders.matching import KeepsRegions
from brivl_search.errors import BrivlSearchError, CorpusError, UsageError
from brivl_search.index import MODALITIES, IndexWriter, Modality
from brivl_search.index.ivfpq import AUTO_THRESHOLD
from brivl_search.index.keys import is_generated
from brivl_search.ingest.captions import CaptionStage
from brivl_search.ingest.coverage import Coverage, cover, nothing_there
from brivl_search.ingest.fields import missing_fields
from brivl_search.ingest.forget import Forgetting
from brivl_search.ingest.generated import GeneratedStage, Generating
from brivl_search.ingest.images import Embedder, ImageStage
from brivl_search.ingest.moved import recognise, shown
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.regions import NONE, keeper_for, matcher_for
from brivl_search.ingest.register import Register
from brivl_search.ingest.report import BuildReport, Progress
from brivl_search.ingest.tuning import tuning_queries

FLUSH_SECONDS = 2.0


def build_index(
    folders: Sequence[Path | str],
    directory: Path,
    encoder: Encoder,
    options: BuildOptions,
    progress: Progress,
    generating: Generating | None = None,
    embedder: Embedder | None = None,
) -> BuildReport:
    """Brings the index at `directory` in step with what lies under `folders`; other folders in it stay as they are.

    Args:
        folders: folders of images, and datasets: annotation files, tars and the like (see `corpus.readers`). None: all
            that the index covers, single files and caption files too.
        generating: captions for photos without any; None: what was generated before stays.
        embedder: decodes and embeds the pictures; None: this process does.

    Raises:
        UsageError: a folder does not exist, a file is no dataset, or no line has a caption field that was asked for.
        CorpusError: no images under the folders, or all that the index covers is away; nothing is changed.
        IndexIncompatibleError: the index is of another encoder.
        BrivlSearchError: another build is writing the index.
    """
    matcher = _matcher(options, encoder)
    progress.phase("scanning", None)
    coverage = cover(directory, folders, options)
    if coverage.whole and not (coverage.paths or coverage.known.sources):
        raise UsageError(f"the index at {directory} remembers no folder: name one, such as ./images")
    found = _find(coverage, options)
    if not found.scan.images and (coverage.away or not coverage.whole or coverage.paths):
        if coverage.whole and not coverage.paths and coverage.away:
            raise nothing_there(coverage)
        raise CorpusError(f"no images: {found.scan.describe_empty()}{hint(coverage.paths)}")
    recognise(coverage, found.scan.images)
    missing = missing_fields(found, options.caption_fields, coverage.encoding)
    with _writer(directory, encoder, options, "build", coverage.paths) as writer:
        build = _Build(
            writer,
            encoder,
            options,
            progress,
            found,
            coverage,
            generating=generating,
            matcher=matcher,
            embedder=embedder,
        )
        build.report.missing_fields = missing
        return build.run()


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
    matcher = _matcher(options, encoder)
    progress.phase("scanning", None)
    coverage = cover(directory, paths, options)
    found = _find(coverage, options, files=True)
    if not found.scan.images and not found.scan.captions:
        raise CorpusError(f"nothing to add: {found.scan.describe_empty()}{hint(paths)}")
    recognise(coverage, found.scan.images)
    missing = missing_fields(found, options.caption_fields, coverage.encoding)
    with _writer(directory, encoder, options, "add", paths) as writer:
        build = _Build(writer, encoder, options, progress, found, coverage, forget=False, matcher=matcher)
        build.report.missing_fields = missing
        return build.run()


def _matcher(options: BuildOptions, encoder: Encoder) -> KeepsRegions | None:
    """The one whose regions are to be kept, before anything is written: it may not fit. Raises as `matcher_for`."""
    name = options.keep_regions
    return None if name in (None, NONE) else matcher_for(str(name), encoder)


def _find(coverage: Coverage, options: BuildOptions, *, files: bool = False) -> Sources:
    """The images and captions of what is looked at, with the files that were added by name where all is looked at."""
    found = Sources(Scan(()))
    broken: dict[str, BrivlSearchError] | None = {} if coverage.whole else None
    if coverage.paths:
        found = find_sources(
            coverage.paths,
            options.dataset,
            fields=coverage.caption_fields,
            known=coverage.datasets(),
            rules=coverage.rules(),
            elsewhere=lambda: coverage.known.folders,
            wary=bool(coverage.new_roots()),
            closed=coverage.closed,
            broken=broken,
            include_hidden=bool(options.include_hidden),
            files=files,
        )
    for path, error in (broken or {}).items():
        coverage.leave_out(path, error)
    if coverage.whole:
        add_named(found.scan, coverage.named)
    return found


def _writer(
    directory: Path, encoder: Encoder, options: BuildOptions, verb: str, paths: Sequence[Path | str]
) -> IndexWriter:
    """Killed and run again with the same paths, it goes on with what was staged.

    A new index takes the encoder's hub correction, where the user has measured one; others keep what they have.
    """
    correction = hub_corrections.saved(encoder.fingerprint)
    writer = IndexWriter(
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
    if not writer.generation:
        writer.correct_hubs("image", correction)
    return writer


def _job(choice: DatasetChoice) -> list[str]:
    return [] if choice == DatasetChoice() else [repr(choice)]


class _AlsoGenerated:
    """Keys that are wanted, and those of generated captions, which no file gives."""

    def __init__(self, wanted: Container[str]) -> None:
        self._wanted = wanted

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and (key in self._wanted or is_generated(key))


class _Build:
    def __init__(
        self,
        writer: IndexWriter,
        encoder: Encoder,
        options: BuildOptions,
        progress: Progress,
        found: Sources,
        coverage: Coverage,
        *,
        forget: bool = True,
        generating: Generating | None = None,
        matcher: KeepsRegions | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.forget, self.coverage, self.generating, self.embedder = forget, coverage, generating, embedder
        self.writer, self.encoder, self.options, self.progress = writer, encoder, options, progress
        self.sources, self.scan = found, found.scan
        self.report = BuildReport(
            found=len(self.scan.images),
            skipped=list(self.scan.skipped),
            unread=Counter(self.scan.unread),
            passed=Counter(self.scan.passed),
        )
        self.flushed = time.monotonic()
        self.indexed = {image.path for image in self.scan.images}  # minus the skipped ones, as they are met
        writer.move(coverage.moves)
        self.register = Register(writer, found, coverage)
        self.gone = Forgetting(writer, found, coverage, self.report, self.indexed)
        self.keeper = keeper_for(writer, encoder, matcher, options.keep_regions, self.report)

    def run(self) -> BuildReport:
        """Stages everything, remembers what is covered, and commits."""
        self.report.notes += self.coverage.notes + self._idle_patterns()
        self.register.remember(forget=self.forget)
        self.images()
        self.captions()
        self.progress.phase("writing the index", None)
        self.report.commit = self.writer.commit(tuning_queries=self.tuning_queries(), progress=self.progress.note)
        if (kept := self.writer.regions) is not None:
            self.report.regions_for, self.report.without_regions = kept.name, self.writer.count_without_regions()
        return self.report

    def _idle_patterns(self) -> list[str]:
        """A note on patterns that were given now and keep nothing out."""
        idle = [one for one in self.options.exclude or () if one not in self.scan.patterns_used]
        if not idle:
            return []
        return [
            f"`exclude` {', '.join(map(printable, idle))}: keeps nothing out (patterns are those of .gitignore, seen "
            "from each folder that is indexed)"
        ]

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
            named=self.register.named,
            limit=self.coverage.max_megapixels,
            flush=self.flush_now_and_then,
            keeper=self.keeper,
            embedder=self.embedder,
        )
        todo = stage.changed(self.scan.images)
        if self.forget:
            self.gone.images()
        else:
            self.writer.keep_staged("image", self.indexed)
        stage.stage(todo)
        if self.forget:
            self.gone.moved(stage.contents)
            self.gone.tell()
        stage.fill_regions(self.scan.images)

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
            stage.read(read_captions(file, self.coverage.caption_fields(file), self.coverage.encoding(file)))
        if self.forget:
            for source in self.register.caption_files():
                fields, encoding = (source.options.get(name) for name in ("caption_fields", "encoding"))
                stage.read(read_captions(source.path, fields, encoding), known=True)
        for reader in self.sources.readers.values():
            stage.read(reader.lines())
        if self.forget:
            self.gone.say_not_text(stage)
        away = self.register.captions_away if self.forget else []
        self.report.notes += [
            f"{shown(source.path)} is not there: no caption is dropped; to forget it: `remove` {shown(source.path)}"
            for source in away
        ]
        if not self.forget:
            self.writer.keep_staged("text", _AlsoGenerated(stage.wanted))
        elif not away:
            self.gone.captions(stage)
        keep = self.indexed if away else self.gone.kept
        stage.set_fields(keep.__contains__, self.gone.shared)
        stage.stage()
        self.generated(stage)

    def generated(self, captions: CaptionStage) -> None:
        """Generates captions where that is asked for, and forgets those that do not hold any more."""
        stage = GeneratedStage(
            self.writer, self.progress, self.report, self.options, captions, self.coverage.max_megapixels
        )
        what = self.generating
        stage.forget(everything=what is not None and not what.languages)
        if what is not None and what.languages:
            stage.stage((file for file in self.scan.images if file.path in self.indexed), what)

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
        return tuning_queries(self.writer, partial(encode_queries, self.encoder))
