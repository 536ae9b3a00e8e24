"""Bringing an index in step with all that it covers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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

    A folder that is away is passed over, with a note; what the index holds of it stays.

    Args:
        directory: the index.
        encoder: the one it was built with.
        options: of the build; how its folders and datasets are read is remembered by the index.
        progress: told what is going on.
        folders: only these of its folders; none: all that it covers.

    Raises:
        UsageError: a folder does not exist, or the index remembers none.
        The rest as `build_index`.
    """
    check(directory, folders)
    return build_index(folders, directory, encoder, options, progress)


def check(directory: Path, folders: Sequence[Path | str]) -> None:
    """What can be said before an encoder is loaded.

    Raises:
        UsageError: no folder is given, and the index remembers none.
        IndexMissingError: there is no index.
    """
    with IndexReader.open(directory) as reader:
        if not (folders or reader.info.sources):
            raise UsageError(f"the index at {directory} remembers no folder: name one, such as ./images")
