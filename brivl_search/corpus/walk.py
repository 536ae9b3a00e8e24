"""Folders become a sorted list of image files and caption files, with a reason for everything passed over.

A file's ending and `stat` decide. Where the ending is unknown or missing, the first bytes do (`kinds`). Whether an
image can be decoded is found out later.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brivl_search.corpus import disks, kinds
from brivl_search.corpus.found import ImageFile as ImageFile
from brivl_search.corpus.found import Scan as Scan
from brivl_search.corpus.found import Skipped as Skipped
from brivl_search.corpus.kinds import image_extensions as image_extensions
from brivl_search.corpus.rules import (
    IGNORE_FILE,
    STOP_FILE,
    Patterns,
    Rules,
    excluded,
    is_system,
    is_thumbnail,
    read_ignore_file,
)
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError

CAPTIONS_NAME = "captions.jsonl"
Elsewhere = Callable[[], Mapping[tuple[int, int], str]]


def scan(
    roots: Sequence[Path | str],
    *,
    include_hidden: bool = False,
    rules: Mapping[str, Rules] | None = None,
    elsewhere: Elsewhere | None = None,
    wary: bool = False,
    closed: Collection[str] = (),
) -> Scan:
    """Find the images and caption files under some folders.

    Links to folders are followed, each folder is listed once, and a folder's own place wins over links to it. A root
    inside another one is walked by its own rules.

    Args:
        roots: folders; they may overlap. A root may itself be hidden.
        include_hidden: also take names that begin with a dot.
        rules: absolute root → how it is walked; goes before `include_hidden`.
        elsewhere: gives (device, inode) → path of folders that the index knows; one met under another name is not
            walked. It is asked of links.
        wary: it is asked of every folder: another mount of one has no link.
        closed: absolute paths of folders below the roots that are not looked into.

    Raises:
        UsageError: a root does not exist or is not a folder, there is none, or a pattern is none.
        CorpusError: a root cannot be reached.
    """
    if not roots:
        raise UsageError("no folder given: name at least one folder of images")
    for root in roots:
        _check_root(os.fspath(root))
    result = Scan(tuple(dict.fromkeys(os.path.abspath(root) for root in roots)))
    _Walk(result, Rules(include_hidden), rules or {}, elsewhere or dict, wary, closed).run()
    result.images.sort(key=lambda image: image.path)
    result.skipped.sort(key=lambda skipped: skipped.path)
    result.captions.sort()
    result.unreadable_dirs.sort()
    return result


def scan_paths(
    paths: Sequence[Path | str],
    *,
    include_hidden: bool = False,
    rules: Mapping[str, Rules] | None = None,
    elsewhere: Elsewhere | None = None,
    wary: bool = False,
    closed: Collection[str] = (),
) -> Scan:
    """Like `scan`, for files and folders mixed: a file that is named is taken, however it is called or hidden.

    Args:
        paths: folders, image files, and caption files ending in .jsonl.
        include_hidden, rules, elsewhere, wary, closed: as of `scan`.

    Raises:
        UsageError: a path does not exist, there is none, or a pattern is none.
        CorpusError: a folder cannot be reached.
    """
    folders = [path for path in paths if os.path.isdir(path)]
    result = Scan(())
    if folders:
        result = scan(
            folders, include_hidden=include_hidden, rules=rules, elsewhere=elsewhere, wary=wary, closed=closed
        )
    seen = {image.path for image in result.images}
    for path in paths:
        absolute = os.path.abspath(path)
        if os.path.isdir(absolute) or absolute in seen:
            continue
        try:
            status = os.stat(absolute)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot add {printable(os.fspath(path))}: {reason}: check the path") from error
        seen.add(absolute)
        if not stat.S_ISREG(status.st_mode):
            result.skipped.append(Skipped(absolute, "not a regular file"))
        elif absolute.endswith(".jsonl"):
            result.captions = sorted({*result.captions, absolute})
        elif why := kinds.refusal(absolute):
            result.skipped.append(Skipped(absolute, "unsupported format", why))
        else:
            result.images.append(ImageFile(absolute, status.st_size, status.st_mtime_ns))
    result.images.sort(key=lambda image: image.path)
    return result


def add_named(result: Scan, paths: Iterable[str]) -> None:
    """Adds files that were named to a scan that did not find them. Those that are gone are passed over.

    Args:
        result: gets the images; a file that is out of reach is one of its `unreadable_dirs`.
        paths: absolute.
    """
    seen = {image.path for image in result.images}
    for path in sorted(set(paths) - seen):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            result.unreadable_dirs.append(path)
            continue
        result.images.append(ImageFile(path, status.st_size, status.st_mtime_ns))
    result.images.sort(key=lambda image: image.path)


def _check_root(given: str) -> None:
    try:
        mode = os.stat(os.path.abspath(given)).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"no such folder: {printable(given)}: check the spelling of the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"cannot read folder {printable(given)!r}: {reason}") from error
    if not stat.S_ISDIR(mode):
        raise UsageError(f"not a folder: {printable(given)}: give the folder that holds the images")


@dataclass(frozen=True)
class _Folder:
    """A folder to be listed, and what holds in it."""

    path: str
    root: str
    device: int  # of the folder above; 0 for a root
    ignored: tuple[Patterns, ...] = ()  # of .brivlignore files above
    passed: str = ""  # why nothing here is taken, only counted
    link: bool = False  # reached through a link


class _Walk:
    """One walk: real folders depth first, links to folders after all of them."""

    def __init__(
        self,
        result: Scan,
        default: Rules,
        rules: Mapping[str, Rules],
        elsewhere: Elsewhere,
        wary: bool,
        closed: Collection[str],
    ) -> None:
        self.result = result
        self.rules = {root: rules.get(root, default) for root in result.roots}
        self.elsewhere, self.wary, self.closed = elsewhere, wary, closed
        self.seen: set[tuple[int, int] | str] = set()
        self.folders: list[_Folder] = []
        self.linked: deque[_Folder] = deque()
        for root in self.rules.values():
            _ = root.patterns  # a pattern that is none is found before the walk

    def run(self) -> None:
        self.folders.extend(_Folder(root, root, 0) for root in reversed(self.result.roots))
        while self.folders or self.linked:
            folder = self.folders.pop() if self.folders else self.linked.popleft()
            try:
                if self._is_new(folder):
                    self._list(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue  # vanished while we walked
            except OSError:
                self.result.unreadable_dirs.append(folder.path)
        for rules in self.rules.values():
            self.result.patterns_used.update(rules.patterns.used if rules.patterns else ())

    def _is_new(self, folder: _Folder) -> bool:
        status = os.stat(folder.path)
        known = status.st_ino != 0
        key = (status.st_dev, status.st_ino) if known else os.path.realpath(folder.path)
        if key in self.seen:
            return False
        if known and (folder.link or self.wary):
            name = self.elsewhere().get((status.st_dev, status.st_ino), folder.path)
            if name != folder.path:
                self.result.aliases.append((folder.path, name))
                return False
        self.seen.add(key)
        if folder.path == folder.root:
            self.result.places[folder.root] = (status.st_dev, status.st_ino)
        elif folder.device and status.st_dev != folder.device:
            relative = os.path.relpath(folder.path, folder.root)
            self.result.mounts.setdefault(folder.root, {})[relative] = disks.disk_of(folder.path)
        return True

    def _list(self, folder: _Folder) -> None:
        with os.scandir(folder.path) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
        if not names:
            self.result.empty_dirs.add(folder.path)
        inside = self._inside(folder, {entry.name for entry in names})
        subfolders = []
        blind = False
        for entry in names:
            try:
                if entry.is_dir(follow_symlinks=False):
                    subfolders += self._subfolder(entry, inside)
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    self.linked.extend(self._subfolder(entry, inside, link=True))
                elif why := inside.passed or self._why_not(entry, inside):
                    if kinds.ending_of(entry.name) in image_extensions() and not is_thumbnail(entry.name):
                        self.result.passed[why] += 1
                else:
                    self._take(entry)
            except FileNotFoundError:
                continue  # vanished while we walked
            except OSError as error:
                blind = True  # listed, but nothing in it can be reached (a folder without the x right)
                if kinds.ending_of(entry.name) in image_extensions():
                    self.result.skipped.append(Skipped(entry.path, _reason(error), error.strerror or ""))
        if blind:
            self.result.unreadable_dirs.append(folder.path)
        self.folders.extend(reversed(subfolders))

    def _inside(self, folder: _Folder, names: set[str]) -> _Folder:
        """What holds in a folder, its own files looked at."""
        device = os.stat(folder.path).st_dev
        passed, ignored = folder.passed, folder.ignored
        if STOP_FILE in names and not passed and folder.path != folder.root:
            passed = STOP_FILE
        if IGNORE_FILE in names and not passed and (found := read_ignore_file(folder.path)):
            ignored = (*ignored, found)
        return _Folder(folder.path, folder.root, device, ignored, passed, folder.link)

    def _subfolder(self, entry: os.DirEntry[str], inside: _Folder, link: bool = False) -> list[_Folder]:
        """The folder to be listed later; none if it is a root of its own, closed or hidden."""
        if entry.path in self.rules or entry.path in self.closed:
            return []
        passed = inside.passed
        if not passed and is_system(entry.name):
            passed = entry.name
        elif not passed and entry.name.startswith(".") and not self.rules[inside.root].include_hidden:
            return []
        elif not passed and self._is_excluded(entry, inside, True):
            passed = "excluded"
        if passed and link:
            return []
        return [
            _Folder(entry.path, inside.root, 0 if link else inside.device, inside.ignored, passed, link or inside.link)
        ]

    def _why_not(self, entry: os.DirEntry[str], inside: _Folder) -> str:
        """Why a file is passed over; "": it is not."""
        if is_thumbnail(entry.name):
            return "thumbnail"
        if entry.name.startswith(".") and not self.rules[inside.root].include_hidden:
            return "hidden"
        return "excluded" if self._is_excluded(entry, inside, False) else ""

    def _is_excluded(self, entry: os.DirEntry[str], inside: _Folder, folder: bool) -> bool:
        own = self.rules[inside.root].patterns
        if own is None and not inside.ignored:
            return False
        return excluded(entry.path, folder, inside.root, own, inside.ignored)

    def _take(self, entry: os.DirEntry[str]) -> None:
        """Sort one entry that is not a folder into the result."""
        extension = kinds.ending_of(entry.name)
        kind = kinds.by_ending(extension)
        if entry.name != CAPTIONS_NAME:
            if kinds.may_be_picture(extension):
                try:
                    kind = kinds.sniff(entry.path)
                except OSError as error:
                    self.result.skipped.append(Skipped(entry.path, _reason(error), error.strerror or ""))
                    return
            if kind is None or kind in kinds.UNREAD:
                self._pass_by(entry, extension, kind)
                return
        try:
            status = entry.stat()
        except OSError as error:
            if not entry.is_symlink() or isinstance(error, PermissionError):
                raise
            self.result.skipped.append(Skipped(entry.path, "broken link", _link_target(entry.path)))
            return
        if not stat.S_ISREG(status.st_mode):
            self.result.skipped.append(Skipped(entry.path, "not a regular file"))
        elif entry.name == CAPTIONS_NAME:
            self.result.captions.append(entry.path)
        elif kind is None or not kinds.is_read(kind):
            detail = f"{extension}: {kind.remedy}" if kind else ""
            self.result.skipped.append(Skipped(entry.path, "unsupported format", detail))
        elif status.st_size == 0:
            self.result.skipped.append(Skipped(entry.path, "empty file"))
        else:
            self.result.images.append(ImageFile(entry.path, status.st_size, status.st_mtime_ns))

    def _pass_by(self, entry: os.DirEntry[str], extension: str, kind: kinds.Kind | None) -> None:
        """Count a file that is no image, or of a kind that is not read."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            self.result.unreadable_dirs.append(entry.path)  # perhaps a link to a disk that is not mounted
        self.result.other_files += 1
        if kind is not None:
            self.result.unread[kinds.label(extension, kind)] += 1


def _reason(error: OSError) -> str:
    return "permission denied" if isinstance(error, PermissionError) else "read error"


def _link_target(path: str) -> str:
    try:
        return f"points to {printable(os.readlink(path))}"
    except OSError:
        return ""
