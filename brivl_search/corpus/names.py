"""Spellings of file names: é is one character, or e and an accent. macOS has the second, people type the first."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def nfc(name: str) -> str:
    """A name or a path as all others are compared: in Unicode's NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(path: str) -> list[str]:
    """A path as it is, in NFC and in NFD, each once."""
    if path.isascii():
        return [path]
    return list(dict.fromkeys([path, nfc(path), unicodedata.normalize("NFD", path)]))


def by_nfc(paths: Iterable[str]) -> dict[str, str]:
    """NFC → path, of the paths that have more than one spelling."""
    return {nfc(path): path for path in paths if not path.isascii()}
