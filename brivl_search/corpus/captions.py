"""Caption files: JSON lines that pair an image with what is said about it.

    {"image": "images/1.jpg", "zh": ["在雪地中奔跑的狗。"], "en": "A dog runs in the snow."}

`image` is relative to the folder of the caption file (or absolute); every other field that is a string or a list of
strings may hold captions. `"generated": true` says that a model wrote the line's captions, and `"captioner"` which one.
UTF-8, with or without a byte order mark, or the named encoding; blank lines are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brivl_search.corpus.fields import MAX_LENGTH, Scalar, scalars_and_lists
from brivl_search.corpus.text import MAX_LINE_BYTES as MAX_LINE_BYTES
from brivl_search.corpus.text import BadLine as BadLine
from brivl_search.corpus.text import json_lines

DEFAULT_FIELDS = ("zh", "en", "captions")


@dataclass(frozen=True, slots=True)
class CaptionLine:
    """One good line.

    Attributes:
        file: the caption file.
        line: 1-based line number.
        image: absolute, normalised path; not checked for existence.
        texts: (field, caption) in the order of the fields asked for, then of the line; empty if the line has none of
            the fields that were named explicitly.
        fields: the line's other fields that are scalars, or lists of them, for filters (see `fields.scalars`).
        captioner: the model that wrote the captions of a line with "generated": true, "a model" if it does not say
            which; "": a person did.
    """

    file: str
    line: int
    image: str
    texts: tuple[tuple[str, str], ...]
    fields: Mapping[str, Scalar | list[Scalar]] = field(default_factory=dict, hash=False)
    captioner: str = ""

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions without their fields."""
        return tuple(text for _, text in self.texts)


class _Bad(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_captions(
    path: Path | str, fields: Sequence[str] | None = None, encoding: str | None = None
) -> Iterator[CaptionLine | BadLine]:
    """Read one caption file; a bad line is reported and never stops the rest.

    Args:
        path: the caption file.
        fields: which fields hold the captions; by default `zh`, `en` and `captions`, of which a line must have one.
        encoding: of the file; None: UTF-8.

    Raises:
        CorpusError: the file itself cannot be read.
    """
    file = os.path.abspath(path)
    for number, record in json_lines(file, encoding):
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
            by = _captioner(record)
            known = {"generated", "captioner"} if by else set()
            others = scalars_and_lists(record, {"image", *DEFAULT_FIELDS, *(fields or ()), *known})
            yield CaptionLine(file, number, image, texts, others, by)


def caption_fields(file: str, encoding: str | None = None) -> list[str]:
    """Names of the fields of a caption file that may hold captions, in order. Raises: CorpusError."""
    names: dict[str, None] = {}
    for _, record in json_lines(file, encoding):
        if isinstance(record, dict):
            for name, value in record.items():
                if name != "image" and (isinstance(value, str) or _is_list_of_strings(value)):
                    names[_shown(name)] = None
    return list(names)


def _captioner(record: dict[str, Any]) -> str:
    if record.get("generated") is not True:
        return ""
    name = record.get("captioner")
    return name[:MAX_LENGTH] if isinstance(name, str) and name else "a model"


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
