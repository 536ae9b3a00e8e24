"""Where roots are now: keys as they are stored ↔ keys as they are here.

A key is stored as it was when its root was first seen. A root that moved gets a line in the table of moves, and no row
is written again. There are three kinds of keys: an image's path, a member of a container (`PATH::NAME`), and a
caption's key, which begins with its image's key and NUL.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

_ENDS = ("/", "\\", "\0", "::")  # what may follow a root in a key
_LITERAL = "\0"  # before a key that a move would otherwise turn into another


class Moves:
    """A table of moves, read both ways. Without a move it costs nothing.

    `here(stored(key)) == key` for every key that does not begin with NUL.

    Args:
        moves: (path as it is stored, where it is now) pairs.
    """

    def __init__(self, moves: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple(sorted({stored: now for stored, now in moves if stored != now}.items()))
        self._by_stored = sorted(self.pairs, key=lambda pair: -len(pair[0]))
        self._by_now = sorted(self.pairs, key=lambda pair: -len(pair[1]))

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def here(self, stored: str) -> str:
        """The key as it is here."""
        for old, now in self._by_stored:
            if (rest := _below(stored, old)) is not None:
                return now + rest
        return stored.lstrip(_LITERAL) if self.pairs else stored

    def stored(self, here: str) -> str:
        """The key as it is stored; a new key gets one that no other key has."""
        if not self.pairs:
            return here
        found = here
        for old, now in self._by_now:
            if (rest := _below(here, now)) is not None:
                found = old + rest
                break
        if self.here(found) != here:  # a new folder where a root was that moved away
            found = here
            while self.here(found) != here:
                found = _LITERAL + found
        return found

    def beginnings(self, prefix: str) -> list[str]:
        """What stored keys may begin with that begin with `prefix` here; others may begin so too."""
        if not self.pairs or not prefix:
            return [prefix]
        found = {_LITERAL * n + prefix for n in range(len(self.pairs) + 2)}
        for old, now in self.pairs:
            if now.startswith(prefix):
                found.add(old)
            elif (rest := _below(prefix, now)) is not None:
                found.add(old + rest)
        return [one for one in sorted(found) if not any(one != other and one.startswith(other) for other in found)]

    def moved(self, old: str, new: str) -> Moves:
        """The table after what is at `old` here has moved to `new`."""
        return self.moved_together([(old, new)])

    def moved_together(self, moves: Sequence[tuple[str, str]]) -> Moves:
        """The table after several (old, new) moves at once: two places may change with each other."""
        after = Moves(moves)
        pairs = {before: after.here(now) for before, now in self.pairs}
        return Moves({**pairs, **{self.stored(old): new for old, new in moves}}.items())

    def record(self, stored: dict[str, Any]) -> dict[str, Any]:
        """A record with its `path` and `image` as they are here."""
        if not self.pairs:
            return stored
        there = {name: self.here(value) for name in ("path", "image") if isinstance(value := stored.get(name), str)}
        return {**stored, **there}

    def to_record(self, here: dict[str, Any]) -> dict[str, Any]:
        """The other way: a record as it is stored."""
        if not self.pairs:
            return here
        there = {name: self.stored(value) for name in ("path", "image") if isinstance(value := here.get(name), str)}
        return {**here, **there}


def _below(key: str, folder: str) -> str | None:
    """What follows a folder (or a container) in a key, None if the key is not below it."""
    if not key.startswith(folder):
        return None
    rest = key[len(folder) :]
    return rest if not rest or rest.startswith(_ENDS) or folder.endswith(("/", "\\")) else None


def beside(directory: str | os.PathLike[str], path: str) -> str:
    """How to get from an index's folder to a path; "" where there is no way (another drive of Windows)."""
    try:
        return os.path.relpath(os.path.realpath(path), os.path.realpath(directory))
    except ValueError:
        return ""


def from_beside(directory: str | os.PathLike[str], way: str) -> str:
    """The path that `beside` led to, seen from where the index lies now."""
    return os.path.normpath(os.path.join(os.path.realpath(directory), way))


def joined(pairs: Sequence[tuple[str, str]], more: Iterable[tuple[str, str]]) -> Moves:
    """A table with further moves."""
    table = Moves(pairs)
    for old, new in more:
        table = table.moved(old, new)
    return table
