"""Filters: what hits must satisfy, and how people write it. `allowed` says which rows do."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from brivl_search.corpus.text import check_text
from brivl_search.errors import UsageError
from brivl_search.search.paths import anchored

_SIZE = re.compile(r"(\d+)(?:\s*[x×X]\s*(\d+))?")


@dataclass(frozen=True)
class Filter:
    """What an image, or a caption and its image, must satisfy: all of what is given.

    Attributes:
        under: absolute folders; the image lies in one of them, at any depth.
        glob: patterns, one of which fits the image's name, or its whole path if the pattern holds a slash.
        after: seconds since the epoch; when it was taken (EXIF), else when the file changed last, is not before this.
        before: the same, earlier than this.
        min_size: pixels, (width, height) at least.
        where: (field, value) pairs; of pairs with one field one must hold, and all fields must. Fields are those of the
            caption file's lines, or `field`, `width`, `height`, `taken`; values compare as text, numbers as numbers.
    """

    under: tuple[str, ...] = ()
    glob: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None
    min_size: tuple[int, int] | None = None
    where: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self != Filter()

    @classmethod
    def of(
        cls,
        *,
        under: Sequence[str | os.PathLike[str]] = (),
        glob: Sequence[str] = (),
        after: str | None = None,
        before: str | None = None,
        min_size: str | None = None,
        where: Sequence[str] = (),
    ) -> Filter:
        """From what people type. Raises UsageError: a date, a size or a FIELD=VALUE that is none, or not UTF-8."""
        pairs = []
        for one in where:
            check_text(one, "`where`")
            name, equals, value = one.partition("=")
            if not equals or not name.strip():
                raise UsageError(
                    f"`where` {one}: give FIELD=VALUE, such as split=test", code="bad_where", details={"where": one}
                )
            pairs.append((name.strip(), value.strip()))
        return cls(
            under=tuple(os.path.abspath(folder) for folder in under),
            glob=tuple(map(anchored, glob)),
            after=None if after is None else parse_time("after", after),
            before=None if before is None else parse_time("before", before),
            min_size=None if min_size is None else _parse_size(min_size),
            where=tuple(pairs),
        )


def parse_time(name: str, text: str) -> float:
    """ "2024", "2024-05", "2024-05-03", "2024-05-03T18:00" (local time, or with a zone) → seconds since the epoch.

    The beginning of what is named. `name` is the argument's, for the message. Raises UsageError.
    """
    text = text.strip()
    full = {4: f"{text}-01-01", 7: f"{text}-01"}.get(len(text), text)
    try:
        return datetime.fromisoformat(full).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"`{name}` {text}: give a date such as 2024, 2024-05, 2024-05-03 or 2024-05-03T18:00",
            code="bad_date",
            details={"argument": name, "value": text},
        ) from None


def _parse_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"`min_size` {text}: give pixels such as 800x600, or 1000 for both sides",
            code="bad_size",
            details={"value": text},
        )
    return int(found[1]), int(found[2] or found[1])
