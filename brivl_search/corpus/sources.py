"""What a build reads: plain folders and files as `walk` finds them, and datasets through their readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brivl_search.corpus.containers.place import SEPARATOR
from brivl_search.corpus.readers import open_dataset, recognise
from brivl_search.corpus.readers.base import Choice, Reader
from brivl_search.corpus.rules import Rules
from brivl_search.corpus.walk import Elsewhere, ImageFile, Scan, image_extensions, scan, scan_paths
from brivl_search.display import printable
from brivl_search.errors import BrivlSearchError, CorpusError, UsageError

_DATASET_FILES = (".tar", ".tsv", ".csv", ".json", ".jsonl", ".txt", ".token", ".tgz", ".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class DatasetChoice:
    """How a path shall be read as a dataset; all None: as what it is.

    Attributes:
        format: name of a reader; a folder is read as a dataset only with it.
        split: only this split.
        images: folder of the images.
        encoding: of the annotation files; None: UTF-8.
    """

    format: str | None = None
    split: str | None = None
    images: str | None = None
    encoding: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """JSON-ready; `of` reads it back. Paths become absolute."""
        images = None if self.images is None else os.path.abspath(self.images)
        values = {"format": self.format, "split": self.split, "images": images}
        return values if self.encoding is None else {**values, "encoding": self.encoding}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DatasetChoice:
        """What an index remembers of a dataset, and more (`covers`)."""
        return cls(values.get("format"), values.get("split"), values.get("images"), values.get("encoding"))


@dataclass
class Sources:
    """The scan of everything, images of datasets included, and the readers that give the datasets' captions.

    Attributes:
        scan: `roots` are plain folders only.
        readers: by the path that was given.
        unreadable: what keys begin with of which nothing is known now.
    """

    scan: Scan
    readers: dict[str, Reader] = field(default_factory=dict)

    @property
    def unreadable(self) -> tuple[str, ...]:
        folders = [os.path.join(folder, "") for folder in self.scan.unreadable_dirs]
        return (*folders, *(prefix for reader in self.readers.values() for prefix in reader.unreadable))


def find_sources(
    paths: Sequence[Path | str],
    choice: DatasetChoice,
    *,
    fields: Callable[[str], tuple[str, ...] | None] = lambda path: None,
    known: Mapping[str, DatasetChoice] | None = None,
    rules: Mapping[str, Rules] | None = None,
    elsewhere: Elsewhere | None = None,
    wary: bool = False,
    closed: Collection[str] = (),
    include_hidden: bool = False,
    files: bool = False,
    broken: dict[str, BrivlSearchError] | None = None,
) -> Sources:
    """Look through folders, files and datasets.

    Args:
        paths: folders, and files of dataset layouts.
        choice: how datasets among them are read.
        fields: of a dataset's absolute path, the caption fields wanted; None: the usual ones.
        known: absolute path → how it was read when the index learned of it; `choice` goes before it.
        rules, elsewhere, wary, closed, include_hidden: as of `walk.scan`.
        broken: gets the datasets that cannot be read, by path, and why; None: the first of them is raised.
        files: also take single images and caption files, as of `walk.scan_paths`.

    Raises:
        UsageError: a path does not exist, is of no known kind, or `choice` fits none of them.
        CorpusError: a path cannot be read, or a dataset has no image that is there.
    """
    plain: list[Path | str] = []
    readers: dict[str, Reader] = {}
    for path in paths:
        absolute = os.path.abspath(path)
        how = choice
        if absolute in (known or {}) and choice == DatasetChoice(encoding=choice.encoding):
            how = replace(known[absolute], encoding=choice.encoding or known[absolute].encoding)  # type: ignore[index]
        if how.format is None and not _is_dataset(absolute, files):
            plain.append(path)
            continue
        wanted = Choice(how.split, how.images, fields(absolute), how.encoding)
        try:
            readers[os.fspath(path)] = open_dataset(path, how.format, wanted)
        except BrivlSearchError as error:
            if broken is None:
                raise
            broken[os.fspath(path)] = error
    if not readers and (choice.split or choice.images):
        given = "split" if choice.split else "images"
        raise UsageError(f"`{given}` is for datasets: name an annotation file or container, or give `dataset_format`")
    walk: Callable[..., Scan] | None
    if files:
        walk = scan_paths
    elif plain or not (readers or broken):
        walk = scan
    else:
        walk = None
    found = Scan(())
    if walk is not None:
        found = walk(plain, include_hidden=include_hidden, rules=rules, elsewhere=elsewhere, wary=wary, closed=closed)
    images = {image.path: image for image in found.images}
    for name, reader in list(readers.items()):
        try:
            _take(reader, images, found)
        except BrivlSearchError as error:
            if broken is None:
                raise
            broken[name] = error
            del readers[name]
    found.images = sorted(images.values(), key=lambda image: image.path)
    return Sources(found, readers)


def hint(paths: Sequence[Path | str]) -> str:
    """For the message of a build that finds no images: which folder could be read as which dataset."""
    for path in paths:
        try:
            fits = [name for name in recognise(path) if name != "captions"] if os.path.isdir(path) else []
        except CorpusError:  # a folder that cannot be listed; the message says so already
            continue
        if fits:
            return f"; {printable(os.fspath(path))} looks like {fits[0]}: `dataset_format` {fits[0]} reads it"
    return ""


def _is_dataset(path: str, files: bool) -> bool:
    """Whether a path without a format is to be read as a dataset: a file that is one, and no caption file to add."""
    if not os.path.isfile(path):
        return False
    ending = os.path.splitext(path)[1].lower()
    if ending in image_extensions() or (files and ending not in _DATASET_FILES):
        return False
    fits = recognise(path)
    return bool(fits) and not (files and fits == ["captions"]) if files else bool(fits) or ending in _DATASET_FILES


def _take(reader: Reader, images: dict[str, ImageFile], found: Scan) -> None:
    """Add a dataset's images to a scan."""
    some, passed = False, 0
    for one in reader.images():
        if isinstance(one, ImageFile):
            some = True
            images.setdefault(one.path, one)
        else:
            passed += 1
            found.skipped.append(one)
    found.unread += reader.unread
    found.passed += reader.passed
    if not some:
        named = f"none of the {passed:,} images it names can be read" if passed else "it has no images"
        example = f" ({found.skipped[-1].reason}: {printable(found.skipped[-1].path)})" if passed else ""
        inside = any(prefix.endswith(SEPARATOR) for prefix in reader.covers)
        advice = "" if inside or reader.choice.images else ": `images` names their folder"
        raise CorpusError(f"no images: {printable(reader.path)}: {named}{example}{advice}")
