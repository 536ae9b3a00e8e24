"""Paths and texts as people may see them, on a terminal or in a message."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

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
