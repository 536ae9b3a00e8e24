"""What a walk passes over: hidden names, what systems and other programs keep, and what people exclude.

Patterns are those of .gitignore, matched by the pathspec library. Letter case does not matter.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from brivl_search.corpus.encodings import NotText, decode
from brivl_search.display import printable
from brivl_search.errors import UsageError

IGNORE_FILE = ".brivlignore"
STOP_FILE = ".nomedia"  # Android's word for: nothing here is for a gallery

# Folders that systems, NAS boxes and photo programs keep for themselves. In small letters.
_SYSTEM = frozenset({
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "@__thumb", ".@upload_cache",
    "@tmp", "$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "windowsapps",
    "lost+found",
    ".thumbnails", ".thumbs", ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems",
    ".documentrevisions-v100", "__macosx", ".appledouble", ".snapshot", ".zfs", ".stversions", ".stfolder",
    ".picasaoriginals", ".dtrash", ".xvpics", ".sync", ".git", ".svn", ".hg", "node_modules", "__pycache__",
})  # fmt: skip
_SYSTEM_ENDS = (".lrdata", ".lrprev", ".cocatalog")  # previews of Lightroom and Capture One
_TRASH = ".trash-"  # .Trash-1000
_THUMBS = ("synophoto_thumb_", "synofile_thumb_", "synovideo_")


def is_system(name: str) -> bool:
    """Is this the name of a folder that a system or program keeps for itself?"""
    small = name.lower()
    return small in _SYSTEM or small.endswith(_SYSTEM_ENDS) or small.startswith(_TRASH)


def is_thumbnail(name: str) -> bool:
    """Is this the name of a file that a system or program made of a photo?"""
    return name.lower().startswith(_THUMBS)


@dataclass(frozen=True)
class Rules:
    """How a root is walked.

    Attributes:
        include_hidden: also take names that begin with a dot.
        exclude: patterns as in .gitignore, relative to the root.
    """

    include_hidden: bool = False
    exclude: tuple[str, ...] = ()

    @cached_property
    def patterns(self) -> Patterns | None:
        """Raises UsageError: a pattern is none."""
        return Patterns("", self.exclude, "`exclude`") if self.exclude else None


class Patterns:
    """Patterns of one place, compiled.

    Args:
        base: the folder that they are relative to; "" for a root's own.
        lines: the patterns.
        where: for the message.

    Attributes:
        used: of the patterns, those that decided something.

    Raises:
        UsageError: a pattern is none.
    """

    def __init__(self, base: str, lines: Iterable[str], where: str) -> None:
        from pathspec import GitIgnoreSpec

        self.base = base
        self._lines = [line for line in lines if line]
        self.used: set[str] = set()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # `re` of odd patterns, which mean what they mean
                self._spec: Any = GitIgnoreSpec.from_lines(_anchored(_plain(line)) for line in self._lines)
        except ValueError as error:
            raise UsageError(
                f"{where}: {error}: write patterns as in .gitignore, such as '*.png' or 'drafts/'"
            ) from None

    def says(self, relative: str) -> bool | None:
        """Is a path (relative to the base, "/" behind a folder) excluded? None: no pattern speaks of it."""
        found = self._spec.check_file(_plain(relative))
        if found.index is not None:
            self.used.add(self._lines[found.index])
        verdict: bool | None = found.include
        return verdict


def _anchored(pattern: str) -> str:
    """ "./a.jpg" as people type it → "/a.jpg" as .gitignore writes it."""
    return pattern[1:] if pattern.startswith("./") else pattern


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def read_ignore_file(folder: str) -> Patterns | None:
    """The patterns of a folder's .brivlignore; None if there is none.

    Raises:
        UsageError: a pattern is none, or the file is not UTF-8: what it should keep out is not known.
        OSError: it cannot be read.
    """
    path = os.path.join(folder, IGNORE_FILE)
    try:
        with open(path, "rb") as file:
            text = decode(file.read())
    except (FileNotFoundError, IsADirectoryError):
        return None
    except NotText as error:
        seems = f", it seems to be {error.guess.name}" if error.guess else ""
        raise UsageError(f"{printable(path)}: not UTF-8 text{seems}: save it as UTF-8", code="not_utf8") from None
    return Patterns(folder, text.splitlines(), printable(path))


def excluded(path: str, is_folder: bool, root: str, own: Patterns | None, nested: Sequence[Patterns]) -> bool:
    """Whether patterns exclude a path. The deepest .brivlignore that speaks of it decides, then the root's own.

    Args:
        path: absolute, below the root.
        is_folder: whether it is a folder.
        root: absolute.
        own: the root's.
        nested: those of the .brivlignore files above the path, the topmost first.
    """
    for patterns in (*reversed(nested), *([own] if own else [])):
        relative = os.path.relpath(path, patterns.base or root).replace(os.sep, "/") + ("/" if is_folder else "")
        verdict = patterns.says(relative)
        if verdict is not None:
            return verdict
    return False
