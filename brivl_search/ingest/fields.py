"""Caption fields that were asked for by name, and that no caption file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from brivl_search.corpus.captions import BadLine, CaptionLine, caption_fields, read_captions
from brivl_search.corpus.sources import Sources
from brivl_search.display import printable
from brivl_search.errors import UsageError

Encodings = Callable[[str], str | None]


def _utf8(path: str) -> None:
    return None


def missing_fields(found: Sources, wanted: Sequence[str] | None, encoding: Encodings = _utf8) -> list[str]:
    """The fields of `wanted` that no line has, where others of them are there. Reads until all were met.

    Args:
        found: what a build reads.
        wanted: caption fields; None: the usual ones, of which any may be missing.
        encoding: of a caption file of a plain folder; None: UTF-8.

    Raises:
        UsageError: no line has any of them; the message names the fields that there are.
    """
    missing = dict.fromkeys(wanted or ())
    lines = 0
    for line in _lines(found, wanted, encoding) if missing else ():
        if isinstance(line, CaptionLine):
            lines += 1
            for name, _ in line.texts:
                missing.pop(name, None)
            if not missing:
                return []
    if not lines or len(missing) < len(set(wanted or ())):
        return list(missing)
    there = dict.fromkeys(name for file in found.scan.captions for name in caption_fields(file, encoding(file)))
    there |= dict.fromkeys(name for reader in found.readers.values() for name in reader.field_names())
    named = ", ".join(printable(name) for name in missing)
    raise UsageError(
        f"`captions` {named}: no caption line has such a field; fields there: {', '.join(there) or 'none'}",
        code="no_such_captions",
        details={"fields": list(missing), "known": list(there)},
    )


def _lines(found: Sources, wanted: Sequence[str] | None, encoding: Encodings) -> Iterator[CaptionLine | BadLine]:
    for file in found.scan.captions:
        yield from read_captions(file, wanted, encoding(file))
    for reader in found.readers.values():
        yield from reader.lines()
