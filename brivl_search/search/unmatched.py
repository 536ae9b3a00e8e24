"""Why a filter lets no row through: what was asked for, beside what the index holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from brivl_search.corpus.containers.place import SEPARATOR
from brivl_search.display import as_given, printable
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader, Modality
from brivl_search.index.columns import split
from brivl_search.search import held
from brivl_search.search.allowed import allowed
from brivl_search.search.filters import Filter

_NAMED = 6  # folders, names or values in a message
_PLURAL: dict[Modality, str] = {"image": "images", "text": "captions"}


@dataclass(frozen=True)
class Reason:
    """Why nothing was found: a line for people, and the same for programs (see `server.protocol.codes`)."""

    message: str
    code: str
    details: dict[str, Any] = field(default_factory=dict)


def check_folders(reader: IndexReader, modality: Modality, wanted: Filter) -> None:
    """Raises UsageError if the index holds nothing in one of the filter's folders; it names folders that there are."""
    for folder in wanted.under:
        if not _fits(reader, modality, Filter(under=(folder,))):
            there = _folders(reader, held.paths(reader, modality))
            near = _nearest(folder, there)
            shown = [near, *(one for one in there if one != near)] if near else there
            raise UsageError(
                f"`under` {_shown(folder)}: the index holds no {_PLURAL[modality]} there "
                f"({f'did you mean {near}? ' if near else ''}there are: {_some(shown)})",
                code="no_such_folder",
                details={"folder": _shown(folder), "folders": shown[:_NAMED]},
            )


def explain(reader: IndexReader, modality: Modality, wanted: Filter) -> Reason | None:
    """Which part of a filter no row satisfies; None if some row satisfies all of it.

    Raises:
        UsageError: no record has a field that the filter names.
    """
    if _fits(reader, modality, wanted):
        return None
    for part in _parts(wanted):
        if not _fits(reader, modality, part):
            return _told(reader, modality, part)
    return Reason(f"no {modality} satisfies all filters at once, each alone is satisfied by some", "filter_together")


def _fits(reader: IndexReader, modality: Modality, wanted: Filter) -> bool:
    return any(mask.any() for mask in allowed(reader, modality, wanted))


def _parts(wanted: Filter) -> Iterator[Filter]:
    """One filter for each thing that is wanted."""
    if wanted.glob:
        yield Filter(glob=wanted.glob)
    if wanted.after is not None:
        yield Filter(after=wanted.after)
    if wanted.before is not None:
        yield Filter(before=wanted.before)
    if wanted.min_size is not None:
        yield Filter(min_size=wanted.min_size)
    for name in dict.fromkeys(name for name, _ in wanted.where):
        yield Filter(where=tuple(pair for pair in wanted.where if pair[0] == name))


def _told(reader: IndexReader, modality: Modality, part: Filter) -> Reason:
    if part.glob:
        names = sorted({split(path)[1] for path in held.paths(reader, modality)})
        pattern = ", ".join(part.glob)
        return Reason(
            f"`glob` {pattern}: no image is called so (there are: {_some(names)})",
            "filter_glob",
            {"glob": list(part.glob), "names": names[:_NAMED]},
        )
    if part.min_size is not None:
        width, height = part.min_size
        largest = "{}x{}".format(*held.largest(reader))
        return Reason(
            f"`min_size` {width}x{height}: the largest image has {largest} pixels",
            "filter_min_size",
            {"min_size": f"{width}x{height}", "largest": largest},
        )
    if part.where:
        name = part.where[0][0]
        values = sorted(held.values(reader, modality, name))
        asked = [value for _, value in part.where]
        return Reason(
            f"`where` {name}={', '.join(asked)}: no {modality} has this value (there are: {_some(values)})",
            "filter_where",
            {"field": name, "asked": asked, "values": values[:_NAMED]},
        )
    span = held.span(reader)
    if part.after is not None:
        asked_for, newest = _date(part.after), _date(span[1]) if span else None
        return Reason(
            f"`after` {asked_for}: " + (f"the newest image is of {newest}" if newest else "no image has a date"),
            "filter_after",
            {"after": asked_for, "newest": newest},
        )
    assert part.before is not None
    asked_for, oldest = _date(part.before), _date(span[0]) if span else None
    return Reason(
        f"`before` {asked_for}: " + (f"the oldest image is of {oldest}" if oldest else "no image has a date"),
        "filter_before",
        {"before": asked_for, "oldest": oldest},
    )


# -- what the index holds ----------------------------------------------------------------------------------------


def _folders(reader: IndexReader, paths: set[str]) -> list[str]:
    """The folders, tars and the like in which images lie; where they are many, those next to the roots."""
    folders = {path.rpartition(SEPARATOR)[0] or os.path.dirname(path) for path in paths}
    roots = [absolute for _, absolute in reader.info.roots]
    for deepest in (3, 2, 1):
        if len(folders) <= _NAMED:
            break
        folders = {_cut(folder, roots, deepest) for folder in folders}
    return sorted(printable(as_given(folder, reader.info.roots)) for folder in folders)


def _cut(folder: str, roots: list[str], deepest: int) -> str:
    """A folder, or the one above it that lies only so deep below its root."""
    for root in roots:
        if folder.startswith(os.path.join(root, "")):
            return os.path.join(root, *os.path.relpath(folder, root).split(os.sep)[:deepest])
    return folder


def _nearest(folder: str, there: list[str]) -> str | None:
    """A folder of a similar name."""
    import difflib

    names = {os.path.basename(one.rstrip("/")).lower(): one for one in there}
    near = difflib.get_close_matches(os.path.basename(folder).lower(), names, 1)
    return names[near[0]] if near else None


# -- for the message ---------------------------------------------------------------------------------------------


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return (", ".join(map(printable, names[:_NAMED])) or "none") + (f" and {more:,} more" if more > 0 else "")


def _shown(folder: str) -> str:
    """As short as it can be typed from here."""
    relative = os.path.relpath(folder)
    return printable(folder if relative.startswith(os.pardir) else relative)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "minutes").removesuffix(" 00:00")
