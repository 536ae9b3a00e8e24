"""Sources that are elsewhere now: found again by inode or by their files, or moved by name.

Only what is the same is taken for moved. A folder that holds some of a root's files is a copy of these, and the root
that is away may come back.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from brivl_search.corpus import disks
from brivl_search.corpus.walk import ImageFile
from brivl_search.display import nearby, printable
from brivl_search.errors import UsageError
from brivl_search.index.snapshot import Snapshot
from brivl_search.index.sources import Source, is_file_of


class Looking(Protocol):
    """What a build looks at, see `coverage.Coverage`."""

    known: Snapshot
    paths: list[Path | str]
    away: list[Source]
    notes: list[str]

    def now(self, path: str, /) -> str: ...
    def follow(self, source: Source, place: str, /) -> None: ...


def shown(path: str) -> str:
    """A path in a message: as short as it can be typed from here."""
    return printable(nearby(path))


def at(path: str, folder: str) -> bool:
    """Is a path a folder's, or below it?"""
    return path == folder or path.startswith(os.path.join(folder, ""))


def place_of(path: str) -> tuple[int, int]:
    """(device, inode), (0, 0) where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return (status.st_dev, status.st_ino) if status.st_ino else (0, 0)


def moved_here(found: Looking, path: str) -> Source | None:
    """The root that lies at a path now, and lay elsewhere when it was seen last; None if there is none.

    It is known by device and inode, and by some file that it holds: both numbers are used again, and two disks often
    have the same. A dataset is also known by its images alone, if they lay inside or beside it.
    """
    place = place_of(path)
    for source in found.known.sources:
        same = bool(source.inode) and (source.device, source.inode) == place
        others = any(not at(path + rest, source.path) for rest, _ in _below(found.known, path)) if same else False
        if same and not others and source.kind in ("folder", "dataset") and place_of(source.path) != place:
            files = _below(found.known, source.path)
            if any(is_file_of(source.path + rest, size) for rest, size in files):
                continue  # it is where it was: this is a copy that got its number
            if not files or any(is_file_of(path + rest, size) for rest, size in files):
                return source
    if _is_in_the_index(found.known, path):
        return None
    for source in found.away:
        if source.kind == "dataset" and _holds(found.known, source, path):
            return source
    return None


def _holds(known: Snapshot, source: Source, path: str) -> bool:
    """Are all images of a dataset there, if its annotations, or its folder, are at a path now?"""
    below = list(_below(known, source.path))
    if below:
        return os.path.isdir(path) and all(is_file_of(path + rest, size) for rest, size in below)
    if os.path.basename(source.path) != os.path.basename(path):
        return False
    old, new = os.path.dirname(source.path), os.path.dirname(path)
    others = tuple(os.path.join(other.path, "") for other in known.sources if other.kind == "folder")
    states = (found for cover in source.covers for found in known.states("image", cover))
    keys = [(key, state.size) for key, state in states if not key.startswith(others)]
    beside = [(new + key[len(old) :], size) for key, size in keys if at(key.partition("::")[0], old)]
    return bool(beside) and all(is_file_of(key, size) for key, size in beside)


def holds_another(known: Snapshot, before: str, now: str, disk: int) -> bool:
    """Is another disk where a folder was: another file system, and none of the files that the index has of it?

    Args:
        known: the index.
        before: the folder as the index knows it.
        now: where it is.
        disk: what `disks.disk_of` said of it when it was seen last; 0: not known.
    """
    if not disk or not os.path.isdir(now) or disks.disk_of(now) == disk:
        return False
    ends = (os.path.join(before, ""), before + "::")
    files = ((now + key[len(before) :], state.size) for end in ends for key, state in known.states("image", end))
    first = next(files, None)
    return first is not None and not any(is_file_of(key, size) for key, size in chain([first], files))


def after(path: str, moves: Iterable[tuple[str, str]]) -> str:
    """Where a path is after (old, new) moves, all of them at once."""
    old, new = max((pair for pair in moves if at(path, pair[0])), key=lambda pair: len(pair[0]), default=("", ""))
    return new + path[len(old) :]


def _below(known: Snapshot, root: str) -> list[tuple[str, int]]:
    """(what follows the root in the key, bytes) of all images of a root."""
    ends = (os.path.join(root, ""), root + "::")
    return [(key[len(root) :], state.size) for end in ends for key, state in known.states("image", end)]


def _is_in_the_index(known: Snapshot, path: str) -> bool:
    return next(iter(_below(known, path)), None) is not None


def recognise(found: Looking, images: Sequence[ImageFile]) -> None:
    """Takes folders, and containers, for known roots that are away, if they hold all of their files.

    A place that the index knows already is none: what is there is a copy. So is one that lacks a file; that is said.

    Args:
        found: of the build; moves and notes are added.
        images: that the build found.
    """
    missing = list(found.away)
    if not missing:
        return
    by_name: dict[tuple[str, int], list[str]] = {}
    for image in images:
        by_name.setdefault((_name(image.path), image.size), []).append(image.path)
    looked_at = [os.path.abspath(path) for path in found.paths]
    for source in missing:
        files = [(rest, size) for rest, size in _below(found.known, source.path) if _counts(source, rest)]
        if not files:
            continue
        votes = Counter(
            path[: -len(rest)]
            for rest, size in files
            for path in by_name.get((_name(rest), size), ())
            if path.endswith(rest)
        )
        for place, count in votes.most_common(4):
            if not any(at(place, root) for root in looked_at) or _is_in_the_index(found.known, place):
                continue
            if any(found.now(other.path) == place for other in found.known.sources):
                continue
            if count == len(files):
                found.follow(source, place)
                break
            if 2 * count > len(files):
                found.notes.append(
                    f"{shown(place)} holds {count:,} of the {len(files):,} images of {shown(source.path)}, which is "
                    f"away: if it has moved: `sources` move {shown(source.path)} {shown(place)}"
                )
                break


def _name(key: str) -> str:
    return os.path.basename(key.rpartition("::")[2])


def _counts(source: Source, rest: str) -> bool:
    """Of a folder its files, of a container its members: a container in a folder is another source's."""
    return ("::" in rest) == (source.kind == "dataset" and rest.startswith("::"))


def check_moves(known: Snapshot, moves: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(old, new) moves with absolute paths. A place that another move leaves is free.

    Raises:
        UsageError: nothing of the index is at an old place, or a new one is not there, known, or of other files; a
            place is named twice.
    """
    found = [(os.path.abspath(old), os.path.abspath(new)) for old, new in moves]
    for places in zip(*found, strict=True):
        if twice := [place for place, count in Counter(places).items() if count > 1]:
            raise UsageError(f"{shown(twice[0])} is named twice: a folder moves to one place")
    for old, new in found:
        _check_move(known, old, new, [other for other, _ in found if other != old])
    return found


def _check_move(known: Snapshot, old: str, new: str, leaving: Sequence[str]) -> None:
    here = [source for source in known.sources if at(source.path, old)]
    if not here:
        names = ", ".join(shown(source.path) for source in known.sources) or "none"
        raise UsageError(f"{shown(old)} is no source of the index (there are: {names})")
    if not os.path.exists(new):
        raise UsageError(f"no such folder: {shown(new)}: name the place where {shown(old)} is now")
    if old == new:
        raise UsageError(f"{shown(old)} is there already: name another place")
    free = any(at(new, other) for other in leaving)
    if not free and (_is_in_the_index(known, new) or any(source.path == new for source in known.sources)):
        a, b = shown(old), shown(new)
        raise UsageError(
            f"{b} is in the index already: `remove` {a} forgets the old place; if the two have changed places: "
            f"`sources` move {a} {b} {b} {a}"
        )
    files = [(source.path + rest, size) for source in here for rest, size in known.sample(source.path)]
    if files and not any(is_file_of(new + path[len(old) :], size) for path, size in files):
        raise UsageError(f"{shown(new)} holds none of the files of {shown(old)} (looked for {len(files)}): check both")
