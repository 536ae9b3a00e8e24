"""How paths are compared with filters: a folder may have several names, a name several spellings.

Both sides are in Unicode's NFC (macOS hands out NFD). A folder is known by the name in the index and by the one that
symbolic links lead to. Patterns ignore letter case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from glob import escape

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.names import nfc
from brivl_search.index import IndexReader
from brivl_search.index.columns import Columns, split

_MAGIC = re.compile(r"[*?[]")
_ONE = re.compile(r"\[([^]!])\]")  # how `glob.escape` writes a character that would mean something


def folded(text: str) -> str:
    """A path or a name without letter case, in NFC."""
    return nfc(text).lower()


def insides(folder: str) -> tuple[str, str]:
    """What paths begin with that lie in a folder, or are members of a tar and the like (CONTAINER::MEMBER)."""
    return os.path.join(folder, ""), folder + "::"


def names_of(folder: str) -> list[str]:
    """A folder as it was named, and where links lead to; in NFC."""
    return list(dict.fromkeys(nfc(name) for name in (folder, os.path.realpath(folder))))


class Aliases:
    """The names that folders of an index have besides those in it.

    Args:
        reader: of the index.
        deep: ask the disk about every folder, not about the index's roots alone.
    """

    def __init__(self, reader: IndexReader, *, deep: bool = False) -> None:
        self._deep = deep
        roots = {source.path for source in reader.info.sources}
        self._roots = {root: real for root in roots if (real := os.path.realpath(root)) != root}
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, head: str) -> tuple[str, ...]:
        """All names of what paths begin with: a folder with its separator. In NFC, that of the index first."""
        found = [head]
        for root, real in self._roots.items():
            if head.startswith(insides(root)):
                found.append(real + head[len(root) :])
        if self._deep:
            end = "::" if head.endswith("::") else os.sep
            bare = head.removesuffix(end)
            found.append(os.path.realpath(bare) + end)
        return tuple(dict.fromkeys(map(nfc, found)))


class Patterns:
    """Patterns for names, or for whole paths where they hold a slash."""

    def __init__(self, patterns: Iterable[str]) -> None:
        whole = [folded(one) for pattern in patterns if "/" in pattern for one in _spellings(pattern)]
        self.names = [_matcher(folded(pattern)) for pattern in patterns if "/" not in pattern]
        self.whole = [(_beginning(one), *_ending(one), re.compile(translate(one)).match) for one in whole]

    def mask(
        self, tails: Sequence[str], head: NDArray[np.int64], names: Sequence[tuple[str, ...]]
    ) -> NDArray[np.bool_]:
        """bool (paths,): which fit.

        Args:
            tails: of the paths.
            head: int64 (paths,), the number of each path's head.
            names: of each head, see `Aliases.of`.
        """
        low = _all_folded(tails)
        found = np.zeros(len(low), dtype=bool)
        for matches in self.names:
            found |= matches(low)
        for beginning, ending, enough, match in self.whole:
            likely = ~found & np.fromiter((name.endswith(ending) for name in low), np.bool_, len(low))
            for number in range(max(map(len, names), default=0)):
                here = [folded(one[number]) if number < len(one) else "" for one in names]
                near = np.fromiter((bool(one) and one.startswith(beginning) for one in here), np.bool_, len(here))
                rows = np.flatnonzero(near[head] & likely)
                if not enough:
                    pairs = zip(rows.tolist(), head[rows].tolist(), strict=True)
                    fits = (match(here[at] + low[row]) is not None for row, at in pairs)
                    rows = rows[np.fromiter(fits, np.bool_, len(rows))]
                found[rows] = True
        return found


def path_masks(
    reader: IndexReader,
    columns: Columns,
    under: Sequence[str],
    patterns: Patterns | None,
    aliases: Aliases,
) -> NDArray[np.bool_]:
    """bool (paths,): which of a shard's paths lie in one of the folders and fit one of the patterns.

    Args:
        reader: of the index.
        columns: of the shard.
        under: folders, absolute; none: any.
        patterns: None: any.
        aliases: of the index.
    """
    count = columns.count_paths()
    head = columns.head_of_paths(count).astype(np.int64)
    names = [aliases.of(reader.moves.here(one)) for one in columns.heads()]
    mask = np.ones(count, dtype=bool)
    if under:
        wanted = tuple(inside for folder in under for name in names_of(folder) for inside in insides(name))
        inside = [any(name.startswith(wanted) for name in one) for one in names]
        mask = np.array(inside, dtype=bool)[head] if count else mask
    if patterns is not None:
        mask &= patterns.mask(columns.tails(), head, names)
    return mask


def all_paths(reader: IndexReader, columns: Columns) -> list[str]:
    """The paths of a shard, as they are here."""
    heads = [reader.moves.here(one) for one in columns.heads()]
    tails = columns.tails()
    return [heads[at] + tail for at, tail in zip(columns.head_of_paths(len(tails)).tolist(), tails, strict=True)]


# -- patterns ----------------------------------------------------------------------------------------------------


def anchored(pattern: str) -> str:
    """A pattern as typed → with the current folder in front where it has a slash and is relative.

    A folder that is there is taken as it is called, whatever brackets its name holds.
    """
    if "/" not in pattern or pattern.startswith("*"):
        return pattern
    *folders, name = pattern.split("/")
    fixed = "/" if os.path.isabs(pattern) else ""
    while folders:
        inside = os.path.join(fixed, folders[0])
        if _MAGIC.search(folders[0]) and not ("[" in folders[0] and os.path.isdir(inside)):
            break
        fixed = inside
        del folders[0]
    try:
        start = os.path.join(os.path.abspath(fixed), "")
    except OSError:  # the current folder is gone
        return pattern
    return escape(start) + "/".join([*folders, name])


def _fixed(pattern: str) -> tuple[str, str]:
    """The literal text that a pattern begins with, and the rest."""
    at, text = 0, ""
    while at < len(pattern):
        one = _ONE.match(pattern, at)
        if one:
            text, at = text + one[1], one.end()
        elif pattern[at] in "*?[":
            break
        else:
            text, at = text + pattern[at], at + 1
    return text, pattern[at:]


def _spellings(pattern: str) -> list[str]:
    """The pattern, and the one for where links in its literal folder lead to."""
    fixed, rest = _fixed(pattern)
    folder, _, name = fixed.rpartition("/")
    if not os.path.isabs(folder):
        return [pattern]
    real = os.path.join(os.path.realpath(folder), "")
    return list(dict.fromkeys([pattern, escape(real) + escape(name) + rest]))


def _beginning(pattern: str) -> str:
    """The folder that all paths begin with which fit a pattern."""
    return split(_fixed(pattern)[0])[0]


def _ending(pattern: str) -> tuple[str, bool]:
    """What all names end with that fit a pattern; and whether that, and the folder, is all it says: FOLDER/*END."""
    end = re.split(r"[*?\]]", pattern)[-1]
    if "/" in end or ":" in end or "[" in end:
        return "", False
    fixed, rest = _fixed(pattern)
    return end, rest == "*" + end and fixed == split(fixed)[0]


def _matcher(pattern: str) -> Callable[[Sequence[str]], NDArray[np.bool_]]:
    """names → bool (names,)."""
    if pattern.startswith("*") and not _MAGIC.search(end := pattern[1:]):
        return lambda names: np.fromiter((name.endswith(end) for name in names), np.bool_, len(names))
    if pattern.endswith("*") and not _MAGIC.search(start := pattern[:-1]):
        return lambda names: np.fromiter((name.startswith(start) for name in names), np.bool_, len(names))
    match = re.compile(translate(pattern)).match
    return lambda names: np.fromiter((match(name) is not None for name in names), np.bool_, len(names))


def _all_folded(names: Sequence[str]) -> Sequence[str]:
    joined = "\0".join(names)
    low = folded(joined).split("\0")
    return low if len(low) == len(names) or not names else [folded(name) for name in names]
