"""Caption files: JSON lines that pair an image with what is said about it.

    {"image": "images/1.jpg", "zh": ["在雪地中奔跑的狗。"], "en": "A dog runs in the snow."}

`image` is relative to the folder of the caption file (or absolute); every other field that is a string or a list of
strings may hold captions. UTF-8, with or without a byte order mark; blank lines are ignored.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from brivl_search.corpus.walk import CAPTIONS_NAME, printable
from brivl_search.errors import CorpusError, UsageError

DEFAULT_FIELDS = ("zh", "en", "captions")
MAX_LINE_BYTES = 4 << 20  # thousands of captions; as objects in memory a hostile line takes some thirty times its bytes

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CaptionLine:
    """One good line.

    Attributes:
        file: the caption file.
        line: 1-based line number.
        image: absolute, normalised path; not checked for existence.
        texts: (field, caption) in the order of the fields asked for, then of the line; empty if the line has none of
            the fields that were named explicitly.
    """

    file: str
    line: int
    image: str
    texts: tuple[tuple[str, str], ...]

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions without their fields."""
        return tuple(text for _, text in self.texts)


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line that cannot be used; `reason` is short and countable."""

    file: str
    line: int
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        what = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{printable(self.file)}:{self.line}: {what}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images with their captions, for evaluation.

    Attributes:
        folder: where the caption file lies, absolute.
        fields: the fields the captions were taken from.
        images: absolute paths, in order of first mention, each once.
        captions: captions[i] belong to images[i]; never empty.
        without_captions: images left out because no line gives them a caption in `fields`.
    """

    folder: str
    fields: tuple[str, ...]
    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    without_captions: int = 0

    def pairs(self) -> tuple[list[str], list[int]]:
        """All captions in order, and for each the position of its image in `images`."""
        texts = [text for group in self.captions for text in group]
        owners = [i for i, group in enumerate(self.captions) for _ in group]
        return texts, owners


class _Bad(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_captions(path: Path | str, fields: Sequence[str] | None = None) -> Iterator[CaptionLine | BadLine]:
    """Read one caption file; a bad line is reported and never stops the rest.

    Args:
        path: the caption file.
        fields: which fields hold the captions; by default `zh`, `en` and `captions`, of which a line must have one.

    Raises:
        CorpusError: the file itself cannot be read.
    """
    file = os.path.abspath(path)
    for number, record in _records(file):
        if isinstance(record, BadLine):
            yield record
            continue
        try:
            image = _image_path(record, os.path.dirname(file))
            texts = tuple(_texts(record, fields or DEFAULT_FIELDS))
            if not texts and not fields:
                there = ", ".join(sorted(set(record) - {"image"}))[:200] or "none"
                raise _Bad("no caption", f"looked for {', '.join(DEFAULT_FIELDS)}; fields here: {_shown(there)}")
        except _Bad as bad:
            yield BadLine(file, number, bad.reason, bad.detail)
        else:
            yield CaptionLine(file, number, image, texts)


def load_dataset(folder: Path | str, fields: str | Sequence[str] | None = None) -> Dataset:
    """Read FOLDER/captions.jsonl strictly, for evaluation.

    Args:
        folder: holds the caption file (whose path is taken too).
        fields: one field or several; by default `zh`, `en` and `captions`.

    Raises:
        UsageError: no such folder, no caption file in it, or a field that no line has.
        CorpusError: a bad line or an image that is not there, as file:line.
    """
    file = _caption_file(folder)
    wanted = (fields,) if isinstance(fields, str) else tuple(fields or ())
    groups: dict[str, list[str]] = {}
    found: set[str] = set()
    for entry in read_captions(file, wanted or None):
        if isinstance(entry, BadLine):
            raise CorpusError(str(entry))
        if entry.image not in groups:
            _check_image(entry)
        found.update(name for name, _ in entry.texts)
        group = groups.setdefault(entry.image, [])
        earlier = set(group)  # a line repeated for the same image adds nothing; twice within one line counts twice
        group.extend(text for text in entry.captions if text not in earlier)
    missing = [name for name in wanted if name not in found]
    if missing:
        there = ", ".join(_caption_fields(file)) or "none"
        raise UsageError(f"no line of {printable(file)} has the field {_shown(missing[0])!r}; fields there: {there}")
    kept = {image: tuple(group) for image, group in groups.items() if group}
    if not kept:
        raise CorpusError(f"{printable(file)} holds no captions")
    used = wanted or tuple(name for name in DEFAULT_FIELDS if name in found)
    return Dataset(os.path.dirname(file), used, tuple(kept), tuple(kept.values()), len(groups) - len(kept))


def _caption_file(folder: Path | str) -> str:
    path = os.path.abspath(folder)
    if os.path.isdir(path):
        path = os.path.join(path, CAPTIONS_NAME)
        if not os.path.lexists(path):
            raise UsageError(f"{printable(os.path.dirname(path))} has no {CAPTIONS_NAME}")
    elif not os.path.lexists(path):
        raise UsageError(f"no such folder: {printable(os.fspath(folder))}: check the spelling of the path")
    return path


def _check_image(entry: CaptionLine) -> None:
    if os.path.isfile(entry.image):
        return
    what = "is not a file" if os.path.exists(entry.image) else "does not exist"
    raise CorpusError(f"{printable(entry.file)}:{entry.line}: image {printable(entry.image)} {what}")


def _caption_fields(file: str) -> list[str]:
    names: dict[str, None] = {}
    for _, record in _records(file):
        if isinstance(record, dict):
            for name, value in record.items():
                if name != "image" and (isinstance(value, str) or _is_list_of_strings(value)):
                    names[_shown(name)] = None
    return list(names)


def _records(file: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Line number and JSON object of every line that is not blank."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise CorpusError(f"{printable(file)} is not a regular file")
        with open(file, "rb") as handle:
            for number, raw in enumerate(_lines(handle), start=1):
                line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
                if not line:
                    continue
                try:
                    if len(raw) > MAX_LINE_BYTES:
                        raise _Bad("line too long", f"the limit is {MAX_LINE_BYTES:,} bytes")
                    yield number, _parse(line)
                except _Bad as bad:
                    yield number, BadLine(file, number, bad.reason, bad.detail)
    except OSError as error:
        raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one longer than MAX_LINE_BYTES, its first MAX_LINE_BYTES + 1 bytes."""
    while raw := handle.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = handle.readline(MAX_LINE_BYTES + 1)
        yield raw


def _parse(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Bad("invalid UTF-8", f"byte {error.start + 1}") from error
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise _Bad("not JSON", f"{error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _Bad("not JSON", str(error)[:100]) from error
    if not isinstance(record, dict):
        raise _Bad("not an object")
    return record


def _image_path(record: dict[str, Any], folder: str) -> str:
    image = record.get("image")
    if image is None or image == "":
        raise _Bad("no `image`")
    if not isinstance(image, str):
        raise _Bad("`image` is not a string")
    try:
        os.fsencode(image)  # lets through the surrogate escapes of names that are not UTF-8, and no others
    except UnicodeEncodeError as error:
        raise _Bad("lone surrogates", "in `image`") from error
    if "\0" in image:
        raise _Bad("`image` is not a file name", "it holds a NUL character")
    return os.path.normpath(os.path.join(folder, image))


def _texts(record: dict[str, Any], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in fields:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            value = [value]
        if not _is_list_of_strings(value):
            raise _Bad(f"`{_shown(name)}` is not a string or a list of strings")
        for text in value:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise _Bad("lone surrogates", f"in `{_shown(name)}`") from error
            if not text.strip():
                raise _Bad("empty caption", f"in `{_shown(name)}`")
            yield name, text.strip()


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
