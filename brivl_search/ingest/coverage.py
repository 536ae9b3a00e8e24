"""What a build looks at: the folders it was given, or all that the index covers, found again where they are now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.rules import Rules
from brivl_search.corpus.sources import DatasetChoice
from brivl_search.display import printable
from brivl_search.errors import BrivlSearchError, CorpusError, UsageError
from brivl_search.index.snapshot import Snapshot
from brivl_search.index.sources import ROOTS, Source, is_away, is_gone, moving_with
from brivl_search.ingest.moved import after, at, check_moves, holds_another, moved_here, place_of, shown
from brivl_search.ingest.options import BuildOptions

REMEMBERED = (
    "include_hidden",
    "exclude",
    "caption_fields",
    "encoding",
    "max_megapixels",
)  # of `BuildOptions`, by each root
_DEFAULTS: dict[str, Any] = {
    "include_hidden": False, "exclude": [], "caption_fields": [], "encoding": "utf-8", "max_megapixels": MAX_MEGAPIXELS
}  # fmt: skip


@dataclass
class Coverage:
    """The roots of one build, and what became of those that the index knew.

    Attributes:
        known: the index before the build.
        options: of the build.
        paths: folders and datasets to be looked through, as they were typed or as the index knows them.
        whole: all that the index covers is looked at, single files and caption files too.
        named: keys of files that were added by name, if they are looked at.
        moves: (old, new) absolute paths of roots that moved.
        doubles: (path, the same folder's other name) of roots that are indexed under two names.
        away: sources that are not there.
        closed: folders in whose place another disk is: they are not looked into, and what the index holds stays.
        notes: sentences for the user.
    """

    known: Snapshot
    options: BuildOptions
    paths: list[Path | str] = field(default_factory=list)
    whole: bool = False
    named: set[str] = field(default_factory=set)
    moves: list[tuple[str, str]] = field(default_factory=list)
    doubles: list[tuple[str, str]] = field(default_factory=list)
    away: list[Source] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The roots that the index knows by their path, those that moved by the new one."""
        roots = {source.path: source for source in self.known.sources if source.kind in ROOTS}
        return {self.now(path): source for path, source in roots.items()}

    def now(self, path: str) -> str:
        """Where a path is after the moves of this build."""
        return after(path, self.moves)

    def read_with(self, path: str) -> dict[str, Any]:
        """JSON-ready: what a root is read with. What the build was given goes before what the index remembers."""
        source = self.sources.get(path)
        found = {name: value for name, value in (source.options.items() if source else ()) if name in REMEMBERED}
        for name in REMEMBERED:
            value = getattr(self.options, name)
            if value is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        return {name: value for name, value in found.items() if value != _DEFAULTS[name]}

    def rules(self) -> dict[str, Rules]:
        """Absolute path → how it is walked."""
        return {path: rules_of(self.read_with(path)) for path in map(os.path.abspath, self.paths)}

    def caption_fields(self, path: str) -> tuple[str, ...] | None:
        """Of a root, or of the innermost root that a file lies in; None: the usual ones."""
        return tuple(self._innermost(path).get("caption_fields", ())) or None

    def encoding(self, path: str) -> str | None:
        """Of the caption files of a root, or of the innermost root that a file lies in; None: UTF-8."""
        return self._innermost(path).get("encoding")

    def max_megapixels(self, path: str) -> float:
        """The largest picture that is taken from a root, or from the innermost root that a file lies in."""
        read = self._innermost(path)
        if read is self._given_alone and self.options.max_megapixels is None:
            read = self.files_options(os.path.dirname(path)) or read
        return float(read.get("max_megapixels", MAX_MEGAPIXELS))

    def files_options(self, folder: str) -> dict[str, Any]:
        """What the single files of a folder were read with."""
        for source in self.known.sources:
            if source.kind == "files" and self.now(source.path) == folder:
                return dict(source.options)
        return {}

    def _innermost(self, path: str) -> dict[str, Any]:
        while path not in self._read:
            above = os.path.dirname(path)
            if above == path:
                return self._given_alone
            path = above
        return self._read[path]

    @cached_property
    def _read(self) -> dict[str, dict[str, Any]]:
        return {path: self.read_with(path) for path in map(os.path.abspath, self.paths)}

    @cached_property
    def _given_alone(self) -> dict[str, Any]:
        return self.read_with("")

    def datasets(self) -> dict[str, DatasetChoice]:
        """Absolute path → how it was read as a dataset when the index learned of it."""
        return {path: DatasetChoice.of(s.options) for path, s in self.sources.items() if s.kind == "dataset"}

    def new_roots(self) -> list[str]:
        """Absolute paths of folders that the index does not know."""
        return [one for one in map(os.path.abspath, self.paths) if one not in self.sources and os.path.isdir(one)]

    def leave_out(self, path: str, error: BrivlSearchError) -> None:
        """A source that cannot be read: the others are brought in step all the same."""
        absolute = os.path.abspath(path)
        self.paths = [one for one in self.paths if os.path.abspath(one) != absolute]
        self.away.append(replace(self.sources[absolute], path=absolute))
        self.__dict__.pop("_away_beginnings", None)
        self.notes.append(f"{error}; what the index holds of {shown(absolute)} stays")

    def is_of_away(self, key: str) -> bool:
        """Does an image belong to a root that is not there?"""
        return key.startswith(self._away_beginnings)

    @cached_property
    def _away_beginnings(self) -> tuple[str, ...]:
        return tuple(source.path + end for source in self.away for end in ("::", os.sep))

    def follow(self, source: Source, place: str) -> None:
        """A source that was away is at a place: with what lies beside it, if it is a dataset."""
        said = away_line(self.known, source)
        self.notes = [note for note in self.notes if note != said]
        self.moves += moving_with(source, place)
        self.away = [one for one in self.away if one is not source]
        self.__dict__.pop("sources", None)
        self.__dict__.pop("_read", None)
        self.notes.append(f"{shown(source.path)} has moved to {shown(place)}: the index follows it")


def rules_of(options: dict[str, Any]) -> Rules:
    return Rules(bool(options.get("include_hidden", False)), tuple(options.get("exclude", ())))


def cover(directory: Path, paths: Sequence[Path | str], options: BuildOptions) -> Coverage:
    """What a build of some folders looks at; without any, all that the index covers.

    Raises:
        UsageError: a folder is named that is away, or a move that cannot be.
        CorpusError: nothing that the index covers is there.
    """
    known = Snapshot.read(directory)
    found = Coverage(known, options, whole=not paths)
    found.moves += check_moves(known, options.moves)
    for path, source in found.sources.items():
        if is_gone(replace(source, path=path)):
            found.away.append(source)
        elif holds_another(known, source.path, path, source.disk):
            found.away.append(source)
            found.closed.add(path)
        elif source.kind == "folder":
            found.closed.update(_other_mounts(known, source, path))
    if paths:
        _take_given(found, paths)
    else:
        _take_all(found)
        found.named = {found.now(key) for key in _named(known)}
    return found


def _other_mounts(known: Snapshot, source: Source, path: str) -> Iterator[str]:
    """Folders below a root, which is at a path now, that were file systems of their own and are other ones now."""
    for mount, disk in source.mounts.items():
        folder = os.path.join(path, mount)
        if not is_away(folder) and holds_another(known, os.path.join(source.path, mount), folder, disk):
            yield folder


def _take_given(found: Coverage, paths: Sequence[Path | str]) -> None:
    gone = {found.now(source.path): source for source in found.away}
    for path in paths:
        absolute = os.path.abspath(path)
        if absolute in gone and (absolute in found.closed or not os.path.lexists(absolute)):
            raise UsageError(away_line(found.known, gone[absolute]))
        if closed := next((one for one in found.closed if at(absolute, one)), None):
            raise UsageError(f"{shown(closed)} {state_of(closed)}: `remove` {shown(closed)} forgets what was there")
        if absolute in gone:
            found.notes.append(away_line(found.known, gone[absolute]))
        other = _other_name(found, absolute)
        if other:
            found.notes.append(f"{printable(os.fspath(path))} is {shown(other)} under another name: indexed as that")
        elif absolute not in found.sources and (source := moved_here(found, absolute)):
            found.paths.append(path)
            found.follow(source, absolute)
            continue
        found.paths.append(other or path)
    given = set(map(os.path.abspath, found.paths))
    for path, source in found.sources.items():  # each root is read by its own options, inside another one too
        inside = any(path.startswith(os.path.join(one, "")) for one in given)
        if inside and path in gone and source in found.away:
            found.notes.append(away_line(found.known, source))
        if source.kind == "folder" and inside and path not in given and path not in gone:
            found.paths.append(source.given if os.path.abspath(source.given) == path else path)


def _take_all(found: Coverage) -> None:
    gone = {found.now(source.path) for source in found.away}
    names: dict[tuple[int, int], str] = {}
    for path, source in found.sources.items():
        if path in gone:
            continue
        place = place_of(path)
        if place in names:
            found.doubles.append((path, names[place]))
            found.notes.append(f"{shown(path)} is {shown(names[place])} under another name: it is indexed once now")
            continue
        if place != (0, 0):
            names[place] = path
        # As it was typed, where that still is the same folder: so paths of hits stay as short as they were.
        found.paths.append(source.given if os.path.abspath(source.given) == path else path)
    found.notes += [away_line(found.known, source) for source in found.away]


def _other_name(found: Coverage, path: str) -> str:
    """The name by which the index knows a folder already; "" if it does not, or knows it by this one."""
    if path in found.sources or not os.path.isdir(path):
        return ""
    place = place_of(path)
    for root in found.sources:
        if place != (0, 0) and place_of(root) == place:
            return root
    other = found.known.folders.get(place, path)
    return "" if other == path else other


def away_line(known: Snapshot, source: Source) -> str:
    """What is said of a source that is not there, and the ways out."""
    name = shown(source.path)
    images = images_of(known, source)
    return (
        f"{name} {state_of(source.path)}: {counted_images(images)} in the index; "
        f"if it has moved: `sources` move {name} NEW; to forget it: `remove` {name}"
    )


def state_of(path: str) -> str:
    """In which way a place is away."""
    if not os.path.isdir(path):
        return "is not there"
    return "is empty" if is_away(path) else "is another disk now, with none of its files"


def counted_images(count: int) -> str:
    return "its image stays" if count == 1 else f"its {count:,} images stay"


def nothing_there(found: Coverage) -> CorpusError:
    """For a build of all that an index covers, of which nothing is there."""
    return CorpusError("; ".join(found.notes))


def _named(known: Snapshot) -> Iterator[str]:
    """Keys of the files that were added by name; in an index of an older format, of those that no root holds."""
    if not known.identity:
        ends = tuple(cover for source in known.sources for cover in (os.path.join(source.path, ""), *source.covers))
        for key, state in known.states("image", ""):
            outside = os.path.isabs(key) and "::" not in key and not key.startswith(ends)
            if state.origin == "unknown" and state.mtime_ns and outside:
                yield key
    for source in known.sources:
        if source.kind == "files":
            for key, state in known.states("image", os.path.join(source.path, "")):
                if state.origin == "file" and os.path.dirname(key) == source.path:
                    yield key


def is_there(known: Snapshot, source: Source) -> bool:
    """Is a source at its path, and not another disk in its place?"""
    return not is_gone(source) and not (
        source.kind in ROOTS and holds_another(known, source.path, source.path, source.disk)
    )


def counted(directory: Path) -> list[tuple[Source, int]]:
    """The sources of an index as they are now, and how many of its images each holds.

    Raises:
        IndexMissingError: there is no index.
    """
    known = Snapshot.read(directory, must=True)
    found = []
    for source in known.sources:
        there = os.path.lexists(source.path) if source.kind == "import" else is_there(known, source)
        found.append((replace(source, present=there), images_of(known, source)))
    return found


def images_of(known: Snapshot, source: Source) -> int:
    """How many images of the index a source holds; those of imports and caption files are not told from others'."""
    if source.kind == "dataset":
        return sum(1 for cover in source.covers for _ in known.states("image", cover))
    if source.kind == "files":
        states = known.states("image", os.path.join(source.path, ""))
        return sum(state.origin == "file" and os.path.dirname(key) == source.path for key, state in states)
    return known.count("image", source.path) if source.kind == "folder" else 0
