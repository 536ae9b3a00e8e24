"""Sources: what an index covers, and how each of them is read. The catalog keeps them in `meta`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from brivl_search.index.moves import Moves, from_beside

SourceKind = Literal["folder", "dataset", "files", "captions", "import"]
ROOTS: tuple[SourceKind, ...] = ("folder", "dataset")

_FRESH = ("lost+found", "system volume information", "$recycle.bin", ".spotlight-v100", ".fseventsd", ".trashes")

Sample = Callable[[str], Iterable[tuple[str, int]]]  # stored path of a root → some (stored key, bytes) below it


@dataclass(frozen=True)
class Source:
    """One source of an index.

    Attributes:
        kind: "folder": all images below it; "dataset": an annotation file, a tar and the like; "files": single files of
            a folder that were named; "captions": a caption file that was named; "import": vectors from elsewhere.
        path: absolute. Of "files" the folder that holds them.
        given: as it was typed.
        options: what it is read with (`include_hidden`, `exclude`, `caption_fields`, `max_megapixels`; of a dataset
            `format`, `split`, `images`). JSON-ready; what is not named has its default.
        covers: of a dataset: what the keys of its images begin with.
        mounts: folders below it that are other file systems, relative → `corpus.disks.disk_of` of them.
        device, inode: of the path when it was seen last; 0: not known.
        disk: `corpus.disks.disk_of` of the path when it was seen last; 0: not known.
        beside: how to get from the index's folder to the path.
        seen: when it was there last, seconds since the epoch; 0: not known.
        present: whether it was there when it was last looked for.
    """

    kind: SourceKind
    path: str
    given: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    covers: tuple[str, ...] = ()
    mounts: Mapping[str, int] = field(default_factory=dict, hash=False)
    device: int = 0
    inode: int = 0
    disk: int = 0
    beside: str = ""
    seen: float = 0.0
    present: bool = True

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Source:
        """From the JSON of a catalog."""
        return cls(**{**body, "covers": tuple(body.get("covers", ()))})

    def mapped(self, where: Callable[[str], str]) -> Source:
        """The same with another path for its path and covers."""
        options = dict(self.options)
        if isinstance(images := options.get("images"), str):
            options["images"] = where(images)
        covers = tuple(_mapped_cover(cover, where) for cover in self.covers)
        return replace(self, path=where(self.path), covers=covers, options=options)


def _mapped_cover(cover: str, where: Callable[[str], str]) -> str:
    for end in ("::", os.sep):
        if cover.endswith(end):
            return where(cover.removesuffix(end)) + end
    return where(cover)


def of_roots(roots: Iterable[tuple[str, str]], datasets: Mapping[str, Mapping[str, Any]]) -> tuple[Source, ...]:
    """The sources of an index of format 3 or older, which knew (as given, absolute) pairs and datasets only."""
    found = []
    for given, absolute in roots:
        how = dict(datasets.get(absolute, {}))
        covers = tuple(how.pop("covers", ()))
        found.append(Source("dataset" if absolute in datasets else "folder", absolute, given, how, covers))
    return tuple(found)


def located(directory: os.PathLike[str], sources: Iterable[Source], moves: Moves, sample: Sample) -> Moves:
    """The moves, and those of roots that went along with the index's folder.

    A source that is away, or holds other files now, and lies where it lay beside the index before, is taken for moved
    if one of its files is there with the size it had. A link that leads elsewhere now is no move.

    Args:
        directory: of the index.
        sources: of the index, as stored.
        moves: the table in the catalog.
        sample: some files of a root.
    """
    for source in sources:
        here = moves.here(source.path)
        if source.kind == "import" or not source.beside:
            continue
        candidate = from_beside(directory, source.beside)
        if candidate == here or is_away(candidate):
            continue
        places = moving_with(source, candidate)
        files = [(old, new, key[len(old) :], size) for old, new in places for key, size in sample(old)]
        if source.kind == "captions":
            moved = is_away(here)
        elif not is_away(here) and os.path.realpath(here) != here:
            continue
        else:
            stay = not is_away(here) and any(is_file_of(moves.here(old) + rest, size) for old, _, rest, size in files)
            moved = not stay and any(is_file_of(new + rest, size) for _, new, rest, size in files)
        if moved:
            moves = moves.moved_together([(moves.here(old), new) for old, new in places])
    return moves


def moving_with(source: Source, place: str) -> list[tuple[str, str]]:
    """(old, new) paths if a source is at a place now: its own, and those of a dataset's images that lay beside it."""
    found = [(source.path, place)]
    folder = os.path.dirname(source.path)
    for cover in source.covers if source.kind == "dataset" else ():
        path = cover.removesuffix("::").removesuffix(os.sep)
        inside = path == source.path or path.startswith(os.path.join(source.path, ""))
        if (path == folder and is_away(folder)) or (path.startswith(os.path.join(folder, "")) and not inside):
            found.append((path, os.path.dirname(place) + path[len(folder) :]))
    return found


def is_gone(source: Source) -> bool:
    """Is a source not there, at the path that it has?"""
    if source.kind == "folder":
        return not os.path.isdir(source.path) or is_away(source.path)
    return is_away(source.path)


def is_away(path: str) -> bool:
    """Is a root not there? An empty folder counts as such: a disk that is not mounted leaves one.

    So does a folder that holds nothing but what a file system puts into a new disk.
    """
    try:
        with os.scandir(path) as entries:
            return all(entry.name.lower() in _FRESH for entry in entries)
    except NotADirectoryError:
        return not os.path.isfile(path)
    except (FileNotFoundError, ValueError):
        return True
    except PermissionError:
        return not os.path.lexists(path)
    except OSError:  # a link that leads to itself, say
        return not os.path.exists(path)


def is_file_of(key: str, size: int) -> bool:
    """Is there a file that may be the one that was indexed? Of a member of a container, the container counts."""
    container, inside, _ = key.partition("::")
    try:
        return os.path.isfile(container) if inside else os.path.getsize(key) == size
    except (OSError, ValueError):
        return False
