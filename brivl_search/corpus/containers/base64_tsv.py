"""Lines `id<TAB>base64 of an image`: where each value lies. The file is passed through in blocks, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 1 << 20
MAX_ID_BYTES = 512

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: its base64 text is `size` bytes from `offset` on."""

    line: int
    id: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class BadRow:
    """One line that cannot be used."""

    line: int
    reason: str


def rows(path: str) -> Iterator[Row | BadRow]:
    """Every line that is not blank. Raises: OSError."""
    for number, start, length, head in _lines(path):
        if number == 1 and head.startswith(_BOM):
            start, length, head = start + len(_BOM), length - len(_BOM), head[len(_BOM) :]
        name, tab, value = head.partition(b"\t")
        if not tab:
            if head.strip() or length > len(head):
                yield BadRow(number, "no tab between id and base64")
            continue
        if len(name) > MAX_ID_BYTES or not name.strip():
            yield BadRow(number, "no id before the tab" if not name.strip() else "the id is too long")
            continue
        if length == len(head):  # a short line: its end is at hand
            length -= len(head) - len(head.rstrip(b"\r"))
        if length - len(name) - 1 <= 0 or not value.strip():
            yield BadRow(number, "no base64 after the tab")
            continue
        try:
            identity = name.strip().decode("utf-8")
        except UnicodeDecodeError:
            yield BadRow(number, "the id is not UTF-8")
            continue
        if "\0" in identity:
            yield BadRow(number, "the id holds a NUL character")
            continue
        yield Row(number, identity, start + len(name) + 1, length - len(name) - 1)


def _lines(path: str) -> Iterator[tuple[int, int, int, bytes]]:
    """(number, offset, length without the line end, first bytes) of every line."""
    keep = MAX_ID_BYTES + 64
    number, start, offset, head = 1, 0, 0, b""
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            at = 0
            while (end := block.find(b"\n", at)) >= 0:
                if len(head) < keep:
                    head += block[at : min(end, at + keep - len(head))]
                yield number, start, offset + end - start, head
                number, start, head, at = number + 1, offset + end + 1, b"", end + 1
            if len(head) < keep:
                head += block[at : at + keep - len(head)]
            offset += len(block)
    if offset > start:
        yield number, start, offset - start, head
