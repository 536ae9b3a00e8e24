"""Tables with a header: a column of image files and one or more of captions, separated by comma, tab, semicolon or bar.

filepath<TAB>title                  OpenCLIP
image,caption                       Flickr8k's captions.txt
image_name| comment_number| comment Flickr30k's results.csv
image,zh,en,split                   any other columns become fields; `split` is chosen by --split
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.encodings import describe, guess
from brivl_search.corpus.fields import Scalar, scalars
from brivl_search.corpus.readers.base import (
    Choice,
    ImageFinder,
    Outside,
    Reader,
    caption,
    files_in,
    first_bytes,
    named,
    once,
    split_of,
)
from brivl_search.corpus.text import MAX_LINE_BYTES, NOT_UTF8, BadLine, seems_to_be
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError

IMAGE_COLUMNS = (
    "image", "filepath", "file_path", "image_path", "img_path", "path", "file_name", "filename", "image_name",
    "image_file", "file", "img", "image_id",
)  # fmt: skip
CAPTION_COLUMNS = (
    "caption", "captions", "title", "text", "sentence", "comment", "raw", "zh", "en", "caption_zh", "caption_en",
)  # fmt: skip
_OWN_FIELD = {"zh": "zh", "en": "en", "caption_zh": "zh", "caption_en": "en"}
_SEPARATORS = "\t,;|"
_ENDINGS = ("", ".jpg", ".jpeg", ".png")


class CsvReader(Reader):
    name = "csv"
    about = "csv or tsv with a header: image (filepath, ...), caption (title, ...)"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        files = self._files(self.path) if os.path.isdir(self.path) else [self.path]
        if not files:
            raise CorpusError(f"{printable(self.path)} holds no file like this: {self.about}")
        self.files = files
        for file in files:
            seems = seems_to_be(file) if choice.encoding is None else None
            if seems is not None:
                raise CorpusError(f"{printable(file)}: {describe(None, seems)}", code="not_utf8")
            if _header(file, choice.encoding) is None:
                raise CorpusError(
                    f"{printable(file)}: its first line names no image column and caption column; known are "
                    f"{', '.join(IMAGE_COLUMNS)} and {', '.join(CAPTION_COLUMNS)}"
                )
        self.finder = ImageFinder(list(dict.fromkeys(map(os.path.dirname, files))), choice.images)

    @classmethod
    def _files(cls, folder: str) -> list[str]:
        files = files_in(folder, r"\.(csv|tsv)$|^captions\.txt$", ("", "captions", "annotations"))
        return [file for file in files if _header(file)]

    @classmethod
    def recognises(cls, path: str) -> bool:
        if os.path.isdir(path):
            return bool(cls._files(path))
        return path.lower().endswith((".csv", ".tsv", ".txt")) and _header(path) is not None

    def images(self) -> Iterator[ImageFile | Skipped]:
        splits = {split for file in self.files for _, row in self._rows(file) if isinstance(row, dict)
                  for split in [row.get("split", "") or split_of(file)]} if self.choice.split else ()  # fmt: skip
        self.check_split(splits)
        names: dict[str, None] = {}
        bad: BadLine | None = None
        for file in self.files:
            for _, image, _, rest in self._entries(file):
                if isinstance(rest, BadLine):
                    bad = bad or rest
                elif image:
                    names[image] = None
        if bad is not None and not names:
            raise CorpusError(f"{bad}: no row of {printable(bad.file)} can be used")
        yield from once(self.finder.image(name, _ENDINGS) for name in names)
        self.covers = [os.path.join(folder, "") for folder in sorted(self.finder.used)]

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for file in self.files:
            yield from named(self._lines(file), self.choice.fields)

    def _lines(self, file: str) -> Iterator[CaptionLine | BadLine]:
        for number, image, texts, rest in self._entries(file):
            if isinstance(rest, BadLine):
                yield rest
                continue
            try:
                path = self.finder.find(image, _ENDINGS)
                found = tuple((name, caption(text)) for name, text in texts if text.strip())
                if not found:
                    raise ValueError("empty caption")
            except (Outside, ValueError) as error:
                yield BadLine(file, number, str(error))
            else:
                yield CaptionLine(file, number, path, found, rest)

    def _entries(self, file: str) -> Iterator[tuple[int, str, list[tuple[str, str]], dict[str, Scalar] | BadLine]]:
        """(line, image, (field or "", caption)s, other fields or what is wrong) of the rows of the split."""
        for number, row in self._rows(file):
            if isinstance(row, BadLine):
                yield number, "", [], row
                continue
            split = row.get("split", "") or split_of(file)
            if not self.wanted_split(split):
                continue
            image = next(row.pop(name) for name in IMAGE_COLUMNS if name in row)
            wanted = [name for name in self.choice.fields or () if name in row]
            texts = [(name, row[name]) for name in wanted if name not in CAPTION_COLUMNS]
            texts += [(name if name in wanted else _OWN_FIELD.get(name, ""), row.pop(name))
                      for name in CAPTION_COLUMNS if name in row]  # fmt: skip
            yield number, image, texts, scalars({**row, **({"split": split} if split else {})}, wanted)

    def _rows(self, file: str) -> Iterator[tuple[int, dict[str, str] | BadLine]]:
        """(number of the last line, column -> value) of every row."""
        header = _header(file, self.choice.encoding)
        assert header is not None  # looked at when the reader was made
        separator, columns = header
        try:
            encoding = self.choice.encoding
            errors = "surrogateescape" if encoding is None else "strict"
            with open(file, encoding=encoding or "utf-8", errors=errors, newline="") as handle:
                lines = (line.removeprefix("\ufeff") for line in iter(lambda: handle.readline(MAX_LINE_BYTES), ""))
                table = csv.reader(lines, delimiter=separator, skipinitialspace=True)
                while True:
                    try:
                        row = next(table, None)
                    except csv.Error as error:
                        yield table.line_num, BadLine(file, table.line_num, f"not {self.name} ({error})")
                        continue
                    if row is None:
                        return
                    if table.line_num == 1 or not any(cell.strip() for cell in row):
                        continue
                    yield table.line_num, self._row(file, table.line_num, columns, row)
        except OSError as error:
            raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
        except UnicodeError:
            raise CorpusError(
                f"{printable(file)}: {describe(encoding, seems_to_be(file, guess))}", code="not_utf8"
            ) from None

    @staticmethod
    def _row(file: str, number: int, columns: Sequence[str], row: Sequence[str]) -> dict[str, str] | BadLine:
        if len(row) != len(columns):
            return BadLine(file, number, f"{len(row)} columns instead of {len(columns)}")
        values = {name: cell.strip() for name, cell in zip(columns, row, strict=True) if name}
        try:
            "".join(values.values()).encode("utf-8")
        except UnicodeEncodeError:
            return BadLine(file, number, NOT_UTF8)
        return values


def _header(file: str, encoding: str | None = None) -> tuple[str, list[str]] | None:
    """(separator, column names in lower case) of a table with an image and a caption column; None if it is not one."""
    if not os.path.isfile(file):
        raise UsageError(f"{printable(file)} is not a file")
    if encoding is None:
        head = first_bytes(file, 16384).decode("utf-8-sig", "replace")
    else:
        with open(file, "rb") as handle:
            head = handle.read(16384).decode(encoding, "replace").removeprefix("\ufeff")
    line = head.splitlines()[:1]
    for separator in _SEPARATORS if line else "":
        columns = [name.strip().strip('"').strip().lower() for name in line[0].split(separator)]
        if len(columns) > 1 and set(columns) & set(IMAGE_COLUMNS) and set(columns) & set(CAPTION_COLUMNS):
            return separator, columns
    return None
