"""What a build looks at: the folders it was given, or all that the index covers, found again where they are now."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.rules import Rules
from brivl_search.corpus.sources import DatasetChoice
from brivl_search.corpus.walk import ImageFile
from brivl_search.display import nearby, printable
from brivl_search.errors import CorpusError, UsageError
from brivl_search.index.snapshot import Snapshot
from brivl_search.index.sources import ROOTS, Source, is_away
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
_SAME = 0.5  # of the sampled files of a root, from which on a folder is taken for it


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
    notes: list[str] = field(default_factory=list)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The roots that the index knows by their path, those that moved by the new one."""
        roots = {source.path: source for source in self.known.sources if source.kind in ROOTS}
        for old, new in self.moves:
            if old in roots:
                roots.setdefault(new, roots.pop(old))
        return roots

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
        return float(self._innermost(path).get("max_megapixels", MAX_MEGAPIXELS))

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

    def recognise(self, images: Sequence[ImageFile]) -> None:
        """Takes new folders for known roots that are away, if they hold their files."""
        missing = [source for source in self.away if source.kind == "folder"]
        if not (missing and self.new_roots()):
            return
        by_name: dict[tuple[str, int], list[str]] = {}
        for image in images:
            by_name.setdefault((os.path.basename(image.path), image.size), []).append(image.path)
        for source in missing:
            sample = self.known.sample(source.path)
            votes = Counter(
                path[: -len(rest)]
                for rest, size in sample
                for path in by_name.get((os.path.basename(rest), size), ())
                if path.endswith(rest)
            )
            for place, count in votes.most_common(1):
                inside = any(place == root or place.startswith(os.path.join(root, "")) for root in self.new_roots())
                if count >= _SAME * len(sample) and inside:
                    self._moved(source, place)

    def _moved(self, source: Source, place: str) -> None:
        self.moves.append((source.path, place))
        self.away.remove(source)
        self.__dict__.pop("sources", None)
        self.__dict__.pop("_read", None)
        self.notes.append(f"{shown(source.path)} has moved to {shown(place)}: the index follows it")


def rules_of(options: dict[str, Any]) -> Rules:
    return Rules(bool(options.get("include_hidden", False)), tuple(options.get("exclude", ())))


def shown(path: str) -> str:
    return printable(nearby(path))


def cover(directory: Path, paths: Sequence[Path | str], options: BuildOptions) -> Coverage:
    """What a build of some folders looks at; without any, all that the index covers.

    Raises:
        UsageError: a folder is named that is away, or a move that cannot be.
        CorpusError: nothing that the index covers is there.
    """
    known = Snapshot.read(directory)
    found = Coverage(known, options, whole=not paths)
    for old, new in options.moves:
        check_move(known, old, new)
        found.moves.append((os.path.abspath(old), os.path.abspath(new)))
    roots = found.sources
    found.away = [source for path, source in roots.items() if is_away(path)]
    if paths:
        _take_given(found, paths)
    else:
        _take_all(found)
        found.named = set(_named(known))
    return found


def _take_given(found: Coverage, paths: Sequence[Path | str]) -> None:
    gone = {source.path: source for source in found.away}
    for path in paths:
        absolute = os.path.abspath(path)
        if absolute in gone and not os.path.lexists(absolute):
            raise UsageError(away_line(found.known, gone[absolute]))
        other = _other_name(found, absolute)
        if other:
            found.notes.append(f"{printable(os.fspath(path))} is {shown(other)} under another name: indexed as that")
        elif absolute not in found.sources and (source := _moved_here(found, absolute)):
            found.paths.append(path)
            found._moved(source, absolute)
            continue
        found.paths.append(other or path)


def _take_all(found: Coverage) -> None:
    gone = {source.path for source in found.away}
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


def _moved_here(found: Coverage, path: str) -> Source | None:
    """The root that is away and was the very folder (device and inode) that lies at a path now."""
    place = place_of(path)
    for source in found.away:
        if source.inode and (source.device, source.inode) == place and source.kind == "folder":
            return source
    return None


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


def place_of(path: str) -> tuple[int, int]:
    """(device, inode), (0, 0) where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return (status.st_dev, status.st_ino) if status.st_ino else (0, 0)


def away_line(known: Snapshot, source: Source) -> str:
    """What is said of a source that is not there, and the ways out."""
    name = shown(source.path)
    images = known.count("image", source.path)
    state = "is empty" if os.path.isdir(source.path) else "is not there"
    return (
        f"{name} {state}: {counted_images(images)} in the index; if it has moved: `sources` move {name} NEW; "
        f"to forget it: `remove` {name}"
    )


def counted_images(count: int) -> str:
    return "its image stays" if count == 1 else f"its {count:,} images stay"


def nothing_there(found: Coverage) -> CorpusError:
    """For a build of all that an index covers, of which nothing is there."""
    return CorpusError("; ".join(away_line(found.known, source) for source in found.away))


def check_move(known: Snapshot, old: str, new: str) -> None:
    """Raises UsageError: nothing of the index is at `old`, or `new` is not there, known, or of other files."""
    old, new = os.path.abspath(old), os.path.abspath(new)
    here = [source for source in known.sources if _at(source.path, old)]
    if not here:
        names = ", ".join(shown(source.path) for source in known.sources) or "none"
        raise UsageError(f"{shown(old)} is no source of the index (there are: {names})")
    if not os.path.exists(new):
        raise UsageError(f"no such folder: {shown(new)}: name the place where {shown(old)} is now")
    if old == new:
        raise UsageError(f"{shown(old)} is there already: name another place")
    for source in known.sources:
        if _at(source.path, new) or (_at(new, source.path) and not _at(source.path, old)):
            raise UsageError(
                f"{shown(new)} is in the index already, as {shown(source.path)}: `remove` {shown(source.path)} first"
            )
    files = [(source.path + rest, size) for source in here for rest, size in known.sample(source.path)]
    there = (new + path[len(old) :] for path, _ in files)
    if files and not any(_size(path) == size for path, (_, size) in zip(there, files, strict=True)):
        raise UsageError(f"{shown(new)} holds none of the files of {shown(old)} (looked for {len(files)}): check both")


def _at(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path.partition("::")[0])
    except (OSError, ValueError):
        return -1


def _named(known: Snapshot) -> Iterator[str]:
    """Keys of the files that were added by name."""
    for source in known.sources:
        if source.kind == "files":
            for key, state in known.states("image", os.path.join(source.path, "")):
                if state.origin == "file" and os.path.dirname(key) == source.path:
                    yield key


def counted(directory: Path) -> list[tuple[Source, int]]:
    """The sources of an index as they are now, and how many of its images each holds.

    Raises:
        IndexMissingError: there is no index.
    """
    known = Snapshot.read(directory, must=True)
    found = []
    for source in known.sources:
        there = os.path.lexists(source.path) if source.kind == "import" else not is_away(source.path)
        if source.kind == "dataset":
            images = sum(1 for cover in source.covers for _ in known.states("image", cover))
        elif source.kind == "files":
            states = known.states("image", os.path.join(source.path, ""))
            images = sum(state.origin == "file" and os.path.dirname(key) == source.path for key, state in states)
        else:
            images = known.count("image", source.path) if source.kind == "folder" else 0
        found.append((replace(source, present=there), images))
    return found
