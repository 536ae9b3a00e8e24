"""How text comes in: one text that somebody gave, and lines of text and JSON out of files.

`take_text` is the one door for single texts: queries, labels, filters, lines of a batch, HTTP. `encodings` turns bytes
into text, and `spelling` says how a model reads it. Lines of files have limits on what one of them may take.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from brivl_search.corpus.encodings import guess, undo_escapes
from brivl_search.corpus.spelling import visible
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError

MAX_LINE_BYTES = 4 << 20  # thousands of captions; as objects in memory a hostile line takes some thirty times its bytes
MAX_JSON_BYTES = 1 << 30  # COCO's largest caption file has 92 MB

_BOM = b"\xef\xbb\xbf"


def take_text(text: str, where: str) -> str:
    """A text that somebody gave → the text as it is shown and searched, without white space around it.

    Args:
        text: of a command line, a file or a request.
        where: what it is, for messages: "the query", "`texts`".

    Raises:
        UsageError: it is not UTF-8, or there is nothing in it that can be seen.
    """
    check_text(text, where)
    if not visible(text):
        hidden = " of invisible characters" if text.strip() else ""
        shown = "empty" if not hidden else f"made{hidden} alone"
        raise UsageError(
            f'{where} is {shown}: give some words, such as "a dog on grass"',
            code="empty_text",
            details={"where": where},
        )
    return text.strip()


def check_text(text: str, where: str) -> None:
    """Raises UsageError if a text holds bytes that were not UTF-8 (as arguments do), or half a character."""
    raw = undo_escapes(text)
    if raw is None:
        return
    found = guess(raw)
    if found is None:
        way = "give it in UTF-8"
    else:
        way = f"it seems to be {found.name}; give it in UTF-8, or in a file with `encoding` {found.codec}"
    raise UsageError(
        f"{where} is not UTF-8 text: {way}", code="not_utf8", details={"encoding": found.codec if found else ""}
    )


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line (of a JSON file: one record, counted from 1) that cannot be used; `reason` is short and countable."""

    file: str
    line: int
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        what = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{printable(self.file)}:{self.line}: {what}"


def raw_lines(file: str) -> Iterator[tuple[int, bytes | BadLine]]:
    """Line number and bytes, stripped, of every line that is not blank; a byte order mark is dropped.

    Raises:
        CorpusError: the file cannot be read.
    """
    try:
        _check_regular(file)
        with open(file, "rb") as handle:
            for number, raw in enumerate(_lines(handle), start=1):
                line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
                if not line:
                    continue
                if len(raw) > MAX_LINE_BYTES:
                    yield number, BadLine(file, number, "line too long", f"the limit is {MAX_LINE_BYTES:,} bytes")
                else:
                    yield number, line
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error


def text_lines(file: str) -> Iterator[tuple[int, str | BadLine]]:
    """Line number and text, stripped, of every line that is not blank. Raises: CorpusError as `raw_lines`."""
    for number, raw in raw_lines(file):
        if isinstance(raw, BadLine):
            yield number, raw
            continue
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, BadLine(file, number, "invalid UTF-8", f"byte {error.start + 1}")


def json_lines(file: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Line number and JSON object of every line that is not blank. Raises: CorpusError as `raw_lines`."""
    for number, text in text_lines(file):
        if isinstance(text, BadLine):
            yield number, text
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            yield number, BadLine(file, number, "not JSON", f"{error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            yield number, BadLine(file, number, "not JSON", str(error)[:100])
        else:
            yield number, record if isinstance(record, dict) else BadLine(file, number, "not an object")


def json_file(file: str) -> Any:
    """The one JSON value in a file. Raises: CorpusError."""
    try:
        _check_regular(file)
        size = os.stat(file).st_size
        if size > MAX_JSON_BYTES:
            raise CorpusError(f"{printable(file)} has {size:,} bytes: the limit for a JSON file is {MAX_JSON_BYTES:,}")
        with open(file, "rb") as handle:
            return json.loads(handle.read().decode("utf-8-sig"))
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{printable(file)} is not JSON: invalid UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise CorpusError(f"{printable(file)}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{printable(file)} is not JSON ({str(error)[:100]})") from error


def _check_regular(file: str) -> None:
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise CorpusError(f"{printable(file)} is not a regular file")


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one longer than MAX_LINE_BYTES, its first MAX_LINE_BYTES + 1 bytes."""
    while raw := handle.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = handle.readline(MAX_LINE_BYTES + 1)
        yield raw
