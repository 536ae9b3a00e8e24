"""Paths and texts as people may see them, on a terminal or in a message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

_SURROGATES = re.compile("[\ud800-\udfff]")
# C0, DEL, C1 (U+009B opens an escape sequence too), line separators, what reverses the reading order, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(path: str) -> str:
    """A path for a message: bytes that are not UTF-8 become `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_given(path: str, roots: Sequence[tuple[str, str]]) -> str:
    """`path` under the folder as it was typed, if that means the same place from the current folder."""
    for given, absolute in roots:
        inside = os.path.join(absolute, "")
        if path.startswith(inside) and os.path.abspath(given) == absolute:
            return os.path.join(given, path[len(inside) :])
        if path.startswith(absolute + "::") and os.path.abspath(given) == absolute:  # inside a tar, say
            return given + path[len(absolute) :]
    return path


def nearby(path: str) -> str:
    """A path for people: relative to the current folder if it lies below, else from `~`, else as it is."""
    try:
        here = os.path.join(os.getcwd(), "")
    except OSError:  # the current folder is gone
        here = ""
    if here not in ("", os.sep) and path.startswith(here):
        return path[len(here) :]
    home = os.path.join(os.path.expanduser("~"), "")
    if os.path.isabs(home) and home != os.sep and path.startswith(home):
        return os.path.join("~", path[len(home) :])
    return path


def elided(text: str, cells: int, width: Callable[[str], int] = len) -> str:
    """A path in at most `cells` cells of a terminal: what is too much is left out of its middle.

    The file's own name stays whole where it fits; its ending stays in any case.

    Args:
        text: the path, harmless.
        cells: at least 1.
        width: cells that a text takes; Chinese characters take two.
    """
    if width(text) <= cells:
        return text
    if cells <= 1:
        return "…"[:cells]
    head, slash, name = text.rpartition("/")
    tail = slash + name if width(name) + 2 <= cells else _last(name, (cells - 1 + 1) // 2, width)
    return _first(head if tail.startswith("/") else text, cells - 1 - width(tail), width) + "…" + tail


def _first(text: str, cells: int, width: Callable[[str], int]) -> str:
    while text and width(text) > cells:
        text = text[: max(min(cells, len(text) - 1), 0)]
    return text


def _last(text: str, cells: int, width: Callable[[str], int]) -> str:
    while text and width(text) > cells:
        text = text[max(len(text) - cells, 1) :]
    return text


def harmless(text: str) -> str:
    """Text for a terminal, in one line: control characters and bytes that are not UTF-8 become escapes such as `\\x1b`.

    No file name or caption can then move the cursor, colour a line or turn its reading order.
    """
    return _UNSAFE.sub(_escape, text)


def as_utf8(text: str) -> str:
    """Text that can be written: only what is not UTF-8 becomes escapes."""
    return _SURROGATES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(found[0])[1:-1]
