"""Bringing an index in step with the folders that it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brivl_search.corpus.sources import DatasetChoice
from brivl_search.encoders.base import Encoder
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport, Progress
from brivl_search.ingest.run import build_index


def sync(
    directory: Path,
    encoder: Encoder,
    options: BuildOptions,
    progress: Progress,
    *,
    folders: Sequence[Path | str] = (),
) -> BuildReport:
    """Takes in what is new or changed under the index's folders, and forgets what is gone.

    Args:
        directory: the index.
        encoder: the one it was built with.
        options: of the build; how its datasets are read is remembered by the index.
        progress: told what is going on.
        folders: only these of its folders; none: all of them.

    Raises:
        UsageError: a folder does not exist, or the index remembers none.
        The rest as `build_index`.
    """
    with IndexReader.open(directory) as reader:
        info = reader.info
    if not (folders or info.roots):
        raise UsageError(f"the index at {directory} remembers no folder: name one")
    datasets = {path: DatasetChoice.of(how) for path, how in info.datasets.items()}
    # As it was typed, where that still is the same folder: so paths of hits stay as short as they were.
    known = [given if Path(given).absolute() == Path(absolute) else absolute for given, absolute in info.roots]
    return build_index(folders or known, directory, encoder, replace(options, known_datasets=datasets), progress)
