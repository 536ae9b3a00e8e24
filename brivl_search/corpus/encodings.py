"""Bytes → text: UTF-8, or the encoding that is named. All else is refused, and the refusal says what it seems to be.

No text is ever guessed into being: a guess only makes the message, and `encoding` is what a person gives.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from brivl_search.errors import UsageError

SAMPLE = 1 << 16  # bytes that a guess looks at
_SURE = 0.75
_THREE_BYTES = re.compile(rb"[\xe0-\xf4][\x80-\xbf]{2}")
_BOM = "\ufeff"


@dataclass(frozen=True)
class Guess:
    """What bytes seem to be: a name for people, a codec for `encoding`, and how well it fits, 0 to 1."""

    name: str
    codec: str
    fit: float

    @property
    def sure(self) -> bool:
        """Whether a whole file may be refused because of it."""
        return self.fit >= _SURE


class NotText(ValueError):
    """Bytes that are not text of the wanted encoding. `guess` says what they seem to be, None if nobody knows."""

    def __init__(self, encoding: str | None, guess: Guess | None) -> None:
        self.encoding, self.guess = encoding, guess
        super().__init__(describe(encoding, guess))


def describe(encoding: str | None, guess: Guess | None) -> str:
    """What is wrong with bytes, and the way out, for a message."""
    if encoding is not None:
        seems = f"it seems to be {guess.name}" if guess else "look what the file's encoding is"
        return f"not {encoding} text: {seems}"
    if guess is None:
        return "not UTF-8 text: save it as UTF-8, or name its encoding with `encoding`"
    return f"not UTF-8 text, it seems to be {guess.name}: give `encoding` {guess.codec}, or save it as UTF-8"


def check_encoding(name: str | None) -> str | None:
    """The name of an encoding, checked. Raises UsageError: Python has no text encoding of this name."""
    if name is None:
        return None
    try:
        if codecs.lookup(name)._is_text_encoding:  # base64 and rot13 are codecs too
            return name
    except (LookupError, ValueError):
        pass
    raise UsageError(
        f"`encoding` {name}: there is no such encoding: give one such as gb18030, big5, utf-16, latin-1",
        code="bad_encoding",
        details={"encoding": name},
    )


def decode(raw: bytes, encoding: str | None = None) -> str:
    """Bytes of a whole text or file → str, without a byte order mark.

    Args:
        raw: the bytes.
        encoding: None: UTF-8.

    Raises:
        NotText: they are not text of this encoding, or hold NUL bytes, as UTF-16 does.
    """
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        raise NotText(encoding, guess(raw)) from None
    if encoding is None and b"\0" in raw and (found := _wide(raw[:SAMPLE])):
        raise NotText(None, found)
    return text.removeprefix(_BOM)


def decode_file(raw: bytes, what: str, encoding: str | None = None) -> str:
    """As `decode`, for a file that a person named. Raises UsageError that names it.

    Args:
        raw: its content.
        what: the file, for the message.
        encoding: None: UTF-8.
    """
    try:
        return decode(raw, encoding)
    except NotText as error:
        raise _refused(what, error) from None


def _refused(what: str, error: NotText) -> UsageError:
    details = {"encoding": error.guess.codec if error.guess else ""}
    return UsageError(f"{what}: {error}", code="not_utf8", details=details)


def decode_lines(chunks: Iterable[bytes], what: str, encoding: str | None = None) -> Iterator[list[str | NotText]]:
    """The lines of a stream, those of a chunk together, without their ends; what has come is not kept waiting.

    Args:
        chunks: parts of it, as they come; none empty.
        what: the stream, for the message.
        encoding: None: UTF-8. Then a single line that is not UTF-8 is told in its place.

    Raises:
        UsageError: the beginning is of another encoding, or anything is where `encoding` is given.
    """
    return _utf8_lines(chunks, what) if encoding is None else _lines_of(chunks, what, encoding)


def _utf8_lines(chunks: Iterable[bytes], what: str) -> Iterator[list[str | NotText]]:
    rest = b""
    for number, chunk in enumerate(chunks):
        if number == 0 and (found := foreign(chunk)):
            raise _refused(what, NotText(None, found))
        *lines, rest = (rest + chunk).split(b"\n")
        yield [_line(one) for one in lines]
    yield [_line(rest)] if rest else []


def _lines_of(chunks: Iterable[bytes], what: str, encoding: str) -> Iterator[list[str | NotText]]:
    decoder = codecs.getincrementaldecoder(encoding)()
    rest = ""
    for chunk in chain(chunks, [b""]):
        try:
            *lines, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
        except UnicodeDecodeError:
            raise _refused(what, NotText(encoding, guess(chunk))) from None
        yield [*lines, rest] if not chunk and rest else list(lines)


def _line(raw: bytes) -> str | NotText:
    try:
        return decode(raw)
    except NotText as error:
        return error


def foreign(head: bytes) -> Guess | None:
    """What a file is whose beginning is surely not UTF-8; None: it is UTF-8, or has single lines that are not.

    Lines that are UTF-8 beyond ASCII speak for the file: then the others are damaged, not of another encoding.
    """
    head = head[:SAMPLE]
    if found := _wide(head):
        return found
    *whole, last = head.split(b"\n")
    good = [line for line in whole if not line.isascii() and _is_utf8(line)]
    bad = sum(not line.isascii() for line in whole) - len(good)
    if not last.isascii():
        if _begins_as_utf8(last):
            good.append(last)
        else:
            bad += 1
    # By chance a line of GBK is UTF-8 too, as characters of two bytes: 猫 is è then. Of three bytes none is.
    if not bad or len(good) > bad or any(_THREE_BYTES.search(line) for line in good):
        return None
    found = guess(head)
    return found if found is not None and found.sure else None


def guess(raw: bytes) -> Guess | None:
    """What bytes that are not UTF-8 seem to be; None where nothing fits."""
    raw = raw[:SAMPLE]
    if found := _wide(raw):
        return found
    if not raw.isascii() and (_begins_as_utf8 if len(raw) == SAMPLE else _is_utf8)(raw):  # another one was named
        return Guess("UTF-8", "utf-8", 1.0)
    found = max((Guess(name, codec, fit(raw)) for name, codec, fit in _CANDIDATES), key=lambda one: one.fit)
    return found if found.fit >= 0.5 else None


def undo_escapes(text: str) -> bytes | None:
    """The bytes of a command-line argument that were not UTF-8; None: it is text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _only_escapes(text) else "surrogatepass")
    return None


def _only_escapes(text: str) -> bool:
    return all(0xDC80 <= ord(char) <= 0xDCFF for char in text if 0xD800 <= ord(char) <= 0xDFFF)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _begins_as_utf8(raw: bytes) -> bool:
    """As `_is_utf8`; a last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _wide(raw: bytes) -> Guess | None:
    """UTF-16 and UTF-32, by their byte order mark, or by NUL bytes between plain characters."""
    for mark, name, codec in (
        (codecs.BOM_UTF32_LE, "UTF-32", "utf-32"),
        (codecs.BOM_UTF32_BE, "UTF-32", "utf-32"),
        (codecs.BOM_UTF16_LE, "UTF-16", "utf-16"),
        (codecs.BOM_UTF16_BE, "UTF-16", "utf-16"),
    ):
        if raw.startswith(mark) and len(raw) > len(mark) and _plain(raw, codec, str.isalnum) > 0.5:
            return Guess(name, codec, 1.0)
    if b"\0" not in raw:
        return None
    found = [Guess(codec[:6].upper(), codec, _plain(raw, codec)) for codec in _WIDE]
    best = max(found, key=lambda one: one.fit)
    return Guess(best.name, best.codec, 1.0) if best.fit > 0.5 else None


_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")


def _plain(raw: bytes, codec: str, letter: Callable[[str], object] | None = None) -> float:
    """The share of characters that texts consist of: ASCII and letters, as which common Chinese characters count."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(raw, final=False)
    except UnicodeDecodeError:
        return 0.0
    common = letter or _leads("gb2312", 0xB0, 0xD7)
    return sum(" " <= char <= "~" or char in "\ufeff\r\n\t" or bool(common(char)) for char in text) / max(len(text), 1)


def _beyond_ascii(raw: bytes, codec: str) -> str | None:
    """The characters beyond ASCII; None if the bytes are not of this codec. A last character may be cut."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(raw, final=False)
    except (UnicodeDecodeError, LookupError):
        return None
    found = "".join(char for char in text if ord(char) > 127)
    return found or None


def _share(raw: bytes, codec: str, good: Callable[[str], float]) -> float:
    found = _beyond_ascii(raw, codec)
    return 0.0 if found is None else sum(map(good, found)) / len(found)


def _leads(codec: str, low: int, high: int) -> Callable[[str], float]:
    """1 for a character whose first byte lies in a range: where a character set has what is used often."""

    def fit(char: str) -> float:
        try:
            raw = char.encode(codec)
        except UnicodeEncodeError:
            return 0.0
        return float(len(raw) == 2 and (low <= raw[0] <= high or 0xA1 <= raw[0] <= 0xA3))

    return fit


def _is_euc_jp(raw: bytes) -> bool:
    """Its kana are kana in GB2312 as well."""
    found = _beyond_ascii(raw, "gb18030") or ""
    return sum("\u3040" <= char <= "\u30ff" for char in found) > 0.3 * len(found)


def _gbk(raw: bytes) -> float:
    if _is_euc_jp(raw):
        return 0.0
    return (0.9 if _euc_kr(raw) else 1.0) * _share(raw, "gb18030", _leads("gb2312", 0xB0, 0xD7))


def _big5(raw: bytes) -> float:
    return 0.0 if _is_euc_jp(raw) else 0.95 * _share(raw, "big5", _leads("big5", 0xA4, 0xC6))


def _shift_jis(raw: bytes) -> float:
    return 0.9 * _share(raw, "cp932", lambda char: "\u3001" <= char <= "\u30ff" or 0.6 * ("\u4e00" <= char <= "\u9fff"))


def _euc_jp(raw: bytes) -> float:
    return 0.9 * _share(
        raw, "euc_jp", lambda char: "\u3001" <= char <= "\u30ff" or 0.6 * ("\u4e00" <= char <= "\u9fff")
    )


def _euc_kr(raw: bytes) -> float:
    found = _beyond_ascii(raw, "euc_kr") or ""
    # Chinese bytes decode as Hangul too. A text of eight characters is hardly ever within this range by chance.
    return (
        0.99 if len(found) >= 8 and all("\uac00" <= char <= "\ud7a3" or char in "，。！？" for char in found) else 0.0
    )


def _cyrillic(raw: bytes) -> float:
    high = re.findall(rb"[\xc0-\xff\xa8\xb8]", raw)
    letters = re.findall(rb"[A-Za-z\x80-\xff]", raw)
    words = re.search(rb"[\xc0-\xff]{3}", raw)
    return 0.8 if words and len(high) >= 0.6 * max(len(letters), 1) and _gbk(raw) < 0.7 else 0.0


def _latin(raw: bytes) -> float:
    high = re.findall(rb"[\x80-\xff]", raw)
    within = re.findall(
        rb"(?<=[A-Za-z])[\xc0-\xff]|[\xc0-\xff](?=[A-Za-z])|(?<= )[\xc0-\xff](?= )|[\x91-\x97\x85\xa9\xb0]", raw
    )
    return 0.7 * len(within) / max(len(high), 1)


_CANDIDATES: tuple[tuple[str, str, Callable[[bytes], float]], ...] = (
    ("GBK", "gb18030", _gbk),
    ("Big5", "big5", _big5),
    ("Shift_JIS", "cp932", _shift_jis),
    ("EUC-JP", "euc_jp", _euc_jp),
    ("EUC-KR", "cp949", _euc_kr),
    ("UTF-16", "utf-16-le", lambda raw: 0.9 * _share(raw, "utf-16-le", _leads("gb2312", 0xB0, 0xD7))),
    ("UTF-16", "utf-16-be", lambda raw: 0.9 * _share(raw, "utf-16-be", _leads("gb2312", 0xB0, 0xD7))),
    ("Windows-1251", "cp1251", _cyrillic),
    ("Latin-1 (Windows-1252)", "cp1252", _latin),
)
