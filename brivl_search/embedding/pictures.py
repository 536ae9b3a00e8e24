"""The images that paths name: files, folders, datasets, and members of containers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brivl_search.corpus.containers.access import locate
from brivl_search.corpus.containers.place import SEPARATOR, split
from brivl_search.corpus.sources import DatasetChoice, find_sources
from brivl_search.corpus.walk import ImageFile, Scan, Skipped
from brivl_search.display import as_given, printable
from brivl_search.errors import CorpusError, ImageError, UsageError


@dataclass(frozen=True)
class Pictures:
    """The images that some paths name.

    Attributes:
        files: the images, sorted by absolute path.
        skipped: files that look like images and were passed over.
        given: absolute path → the path as it was typed.
    """

    files: list[ImageFile]
    skipped: list[Skipped]
    given: Mapping[str, str]

    def as_given(self, path: str) -> str:
        """An image's path for people: itself, its folder or its container as that was typed."""
        container, _, member = path.partition(SEPARATOR)
        if path in self.given or (member and container in self.given):
            return self.given.get(path) or self.given[container] + SEPARATOR + member
        return as_given(path, [(typed, absolute) for absolute, typed in self.given.items()])


def find_pictures(paths: Sequence[Path | str], *, include_hidden: bool = False) -> Pictures:
    """Image files, all images below folders, those of datasets (tars, annotation files), and CONTAINER::MEMBER.

    Raises:
        UsageError: a path does not exist.
        CorpusError: there is no image.
    """
    members: list[ImageFile] = []
    plain: list[Path | str] = []
    for path in paths:
        absolute = os.path.abspath(path)
        if split(absolute):
            members.append(_member(absolute))
        elif os.path.lexists(path):
            plain.append(path)
        else:
            raise UsageError(f"no such file or folder: {printable(os.fspath(path))}: check the path")
    scan = find_sources(plain, DatasetChoice(), include_hidden=include_hidden, files=True).scan if plain else Scan(())
    files = {file.path: file for file in (*scan.images, *members)}
    if not files:
        raise CorpusError(f"no images: {scan.describe_empty()}" if scan.roots else "no images among the files named")
    given = {os.path.abspath(path): os.fspath(path) for path in paths}
    return Pictures([files[path] for path in sorted(files)], scan.skipped, given)


def _member(path: str) -> ImageFile:
    try:
        place = locate(path)
    except ImageError as error:
        raise UsageError(f"{printable(path)}: {error}") from None
    assert place is not None  # split has said so
    return ImageFile(path, place.size, place.mtime_ns, place)
