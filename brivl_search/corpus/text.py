"""How text comes in: one text that somebody gave, and lines of text and JSON out of files.

`take_text` is the one door for single texts: queries, labels, filters, lines of a batch, HTTP. `encodings` turns bytes
into text, and `spelling` says how a model reads it. Lines of files have limits on what one of them may take.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, AnyStr

from brivl_search.corpus.encodings import SAMPLE, Guess, NotText, decode, describe, foreign, guess, undo_escapes
from brivl_search.corpus.spelling import visible
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError

MAX_LINE_BYTES = 4 << 20  # thousands of captions; as objects in memory a hostile line takes some thirty times its bytes
MAX_JSON_BYTES = 1 << 30  # COCO's largest caption file has 92 MB

NOT_UTF8 = "invalid UTF-8"
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
        what = f"{where} is" if where.startswith("the ") else f"{where}: the text is"
        how = "made of invisible characters alone" if text.strip() else "empty"
        message = f'{what} {how}: give some words, such as "a dog on grass"'
        raise UsageError(message, code="empty_text", details={"where": where})
    return text.strip()


def check_text(text: str, where: str) -> None:
    """Raises UsageError if a text holds bytes that were not UTF-8 (as arguments do), or half a character."""
    raw = undo_escapes(text)
    if raw is None:
        return
    found = guess(raw)
    seems = f", it seems to be {found.name}" if found else ""
    raise UsageError(
        f"{where} is not UTF-8 text{seems}: give it in UTF-8",
        code="not_utf8",
        details={"where": where, "encoding": found.codec if found else ""},
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
            for number, raw in enumerate(_lines(handle, b"\n"), start=1):
                line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
                if not line:
                    continue
                if len(raw) > MAX_LINE_BYTES:
                    yield number, BadLine(file, number, "line too long", f"the limit is {MAX_LINE_BYTES:,} bytes")
                else:
                    yield number, line
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error


def text_lines(file: str, encoding: str | None = None) -> Iterator[tuple[int, str | BadLine]]:
    """Line number and text, stripped, of every line that is not blank.

    Args:
        file: its path.
        encoding: of the file; None: UTF-8. Then a line that is not UTF-8 is told in its place, and of a file in
            UTF-16 or UTF-32 the first one. In a file of another encoding a line can be UTF-8 by chance: 猫 in GBK is
            è. So all of its lines beyond ASCII are told.

    Raises:
        CorpusError: as `raw_lines`, or the file is not of the named encoding.
    """
    if encoding is not None:
        yield from _lines_of(file, encoding)
        return
    seems = seems_to_be(file)
    way = "" if seems is None else f"the file seems to be {seems.name}: give `encoding` {seems.codec}"
    if seems is not None and seems.codec.startswith("utf"):
        yield 1, BadLine(file, 1, NOT_UTF8, way)
        return
    for number, raw in raw_lines(file):
        if isinstance(raw, BadLine):
            yield number, raw
            continue
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, BadLine(file, number, NOT_UTF8, "; ".join(filter(None, (f"byte {error.start + 1}", way))))
        else:
            yield number, text if seems is None or text.isascii() else BadLine(file, number, NOT_UTF8, way)


def _lines_of(file: str, encoding: str) -> Iterator[tuple[int, str | BadLine]]:
    """As `text_lines`, of a named encoding."""
    try:
        _check_regular(file)
        with open(file, encoding=encoding, newline="\n") as handle:
            for number, line in enumerate(_lines(handle, "\n"), start=1):
                text = (line.removeprefix("\ufeff") if number == 1 else line).strip()
                if len(line) > MAX_LINE_BYTES:
                    yield number, BadLine(file, number, "line too long", f"the limit is {MAX_LINE_BYTES:,} characters")
                elif text:
                    yield number, text
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
    except UnicodeError:
        raise CorpusError(
            f"{printable(file)}: {describe(encoding, seems_to_be(file, guess))}", code="not_utf8"
        ) from None


def seems_to_be(file: str, asked: Callable[[bytes], Guess | None] = foreign) -> Guess | None:
    """What a file is by its beginning. Raises: CorpusError as `raw_lines`.

    Args:
        file: its path.
        asked: `encodings.foreign`: None if it is UTF-8; `encodings.guess` where another encoding did not fit.
    """
    try:
        _check_regular(file)
        with open(file, "rb") as handle:
            return asked(handle.read(SAMPLE))
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error


def json_lines(file: str, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Line number and JSON object of every line that is not blank. Arguments and errors are those of `text_lines`."""
    for number, text in text_lines(file, encoding):
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


def json_file(file: str, encoding: str | None = None) -> Any:
    """The one JSON value in a file, in UTF-8 or the named encoding. Raises: CorpusError."""
    try:
        _check_regular(file)
        size = os.stat(file).st_size
        if size > MAX_JSON_BYTES:
            raise CorpusError(f"{printable(file)} has {size:,} bytes: the limit for a JSON file is {MAX_JSON_BYTES:,}")
        with open(file, "rb") as handle:
            return json.loads(decode(handle.read(), encoding))
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
    except NotText as error:
        what = f": {error}" if error.guess or encoding else " is not JSON: invalid UTF-8"
        raise CorpusError(f"{printable(file)}{what}", code="not_utf8") from error
    except json.JSONDecodeError as error:
        raise CorpusError(f"{printable(file)}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{printable(file)} is not JSON ({str(error)[:100]})") from error


def _check_regular(file: str) -> None:
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise CorpusError(f"{printable(file)} is not a regular file")


def _lines(handle: IO[AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """The lines of a file; of one longer than MAX_LINE_BYTES, its first MAX_LINE_BYTES + 1 bytes or characters."""
    while raw := handle.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(end):
            rest = handle.readline(MAX_LINE_BYTES + 1)
        yield raw
