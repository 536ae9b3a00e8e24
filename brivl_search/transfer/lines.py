"""Lines that an import is given: what they must be, so that nothing later stumbles over them. Errors name the line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from brivl_search.corpus.encodings import Guess, guess
from brivl_search.display import printable
from brivl_search.errors import CorpusError

DEEPEST = 64  # lists and objects inside of each other; records are read again by code that recurses
_HASH = re.compile(r"[\x01-\x7f]{1,128}")
_RANGE = {"size": (0, 2**64), "mtime_ns": (-(2**63), 2**63)}


def parse(raw: bytes | str, where: str) -> Any:
    """The JSON of a line.

    Args:
        raw: the line.
        where: file and line, for the message.

    Raises:
        CorpusError: it is no JSON, nested too deeply, or holds half a character or a number that is not finite.
    """

    def refuse(name: str) -> None:
        raise CorpusError(f"{where}: {name} is no number in JSON: leave the value out, or give null")

    try:
        body = json.loads(raw, parse_constant=refuse)
    except RecursionError:
        raise CorpusError(f"{where}: lists or objects are nested more than {DEEPEST} deep") from None
    except UnicodeDecodeError:
        found = guess(raw) if isinstance(raw, bytes) else None
        raise CorpusError(not_utf8(where, found), code="not_utf8") from None
    except ValueError as error:
        raise CorpusError(f"{where}: not JSON ({error})") from error
    check(body, where)
    return body


def not_utf8(where: str, seems: Guess | None) -> str:
    """A message of a file, or a line, that is not text as an import takes it."""
    return f"{where}: not UTF-8 text{f', it seems to be {seems.name}' if seems else ''}: save the file as UTF-8"


def check(body: Any, where: str) -> None:
    """Raises CorpusError: too deep, a text holds half a character (a lone surrogate), or a number is not finite."""
    for depth, text in _parts(body):
        if depth > DEEPEST:
            raise CorpusError(f"{where}: lists or objects are nested more than {DEEPEST} deep")
        if text is None:
            raise CorpusError(f"{where}: a number is too large: leave the value out, or give null")
        if not is_whole(text):
            raise CorpusError(f"{where}: {ascii(text)[:60]} holds half a character (a lone surrogate): mend it")


def _parts(body: Any) -> Iterator[tuple[int, str | None]]:
    """(depth, text) of all texts, the names of fields among them; "" for a list or an object itself.

    None instead of a text for a number that is not finite, such as 1e999.
    """
    left = [(0, body)]
    while left:
        depth, one = left.pop()
        if isinstance(one, str):
            yield depth, one
        elif isinstance(one, float):
            if not math.isfinite(one):
                yield depth, None
        elif isinstance(one, list | dict):
            yield depth + 1, ""
            if depth + 1 > DEEPEST:
                return
            inside = [*one, *one.values()] if isinstance(one, dict) else one
            left += [(depth + 1, part) for part in inside if isinstance(part, str | float | list | dict)]


def is_whole(text: str) -> bool:
    """Whether a text can be stored: all but lone surrogates, of which only bytes of names that are not UTF-8 may be."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def texts_of(body: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    """Raises CorpusError: one of these fields is there and is no text, or holds a NUL, which parts names in keys."""
    for name in names:
        value = body.get(name)
        if value is not None and not isinstance(value, str):
            raise CorpusError(f"{where}: `{name}` is {_shown(value)}: give a text")
        if name != "key" and "\0" in (value or ""):
            raise CorpusError(f"{where}: `{name}` holds a NUL character: leave it out")


def content_of(body: Mapping[str, Any], where: str) -> str | None:
    """The hash of the content, None where there is none. Raises CorpusError: it is none."""
    content = body.get("content")
    if content in (None, ""):
        return None
    if not isinstance(content, str) or not _HASH.fullmatch(content):
        raise CorpusError(f"{where}: `content` is {_shown(content)}: give a hash, 1 to 128 ASCII characters")
    return content


def check_fields(record: Mapping[str, Any], where: str) -> None:
    """Raises CorpusError: `fields` is there and is no object."""
    if not isinstance(fields := record.get("fields", {}), dict):
        raise CorpusError(f'{where}: `fields` is {_shown(fields)}: give an object, such as {{"split": "test"}}')


def number_of(body: Mapping[str, Any], name: str, where: str) -> int:
    """`size` or `mtime_ns`. Raises CorpusError: it is no whole number that fits into 64 bits."""
    value = body[name]
    least, end = _RANGE[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < end:
        raise CorpusError(f"{where}: `{name}` is {_shown(value)}: give a whole number")
    return value


def _shown(value: Any) -> str:
    shown = ascii(value)
    return printable(shown if len(shown) <= 40 else shown[:39] + "…")
