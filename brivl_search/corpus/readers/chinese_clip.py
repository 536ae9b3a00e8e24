"""Chinese-CLIP's files, and MUGE's, which differ in the names of fields. Images are read out of the TSV.

valid_imgs.tsv       1000002<TAB>/9j/4AAQSkZJ...                        id, base64 of the image file
valid_texts.jsonl    {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}
MR_valid_queries.jsonl  {"query_id": 8428, "query_text": "...", "item_ids": [1076345, 517602]}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import ClassVar

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.containers.base64_tsv import BadRow, rows
from brivl_search.corpus.containers.place import SEPARATOR, Place
from brivl_search.corpus.fields import Scalar, scalars
from brivl_search.corpus.readers.base import Choice, Reader, caption, files_in, named, split_of
from brivl_search.corpus.text import BadLine, json_lines
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import CorpusError

_IMAGES = "_imgs.tsv"


class ChineseClipReader(Reader):
    name = "chinese-clip"
    about = "Chinese-CLIP: SPLIT_texts.jsonl and SPLIT_imgs.tsv"
    where_images_lie = f"are inside its *{_IMAGES}"
    texts: ClassVar[str] = "_texts.jsonl"
    keys: ClassVar[tuple[str, str, str]] = ("text_id", "text", "image_ids")

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        heads = self._heads(self.path)
        self.check_split(map(split_of, heads))
        self.heads = [head for head in heads if choice.split is None or self.wanted_split(split_of(head))]
        for head in self.heads:
            if not os.path.isfile(head + _IMAGES):
                raise CorpusError(f"{printable(head + _IMAGES)} is missing: it holds the images of {self.texts[1:]}")
        if not self.heads:
            raise CorpusError(f"{printable(self.path)} holds no file like this: {self.about}")

    @classmethod
    def _heads(cls, path: str) -> list[str]:
        """ "/data/valid" of /data/valid_texts.jsonl and /data/valid_imgs.tsv."""
        files = files_in(path, rf"({re.escape(cls.texts)}|{_IMAGES})$")
        heads = [re.sub(rf"({re.escape(cls.texts)}|{_IMAGES})$", "", file) for file in files]
        return list(dict.fromkeys(head for head, file in zip(heads, files, strict=True) if head != file))

    @classmethod
    def recognises(cls, path: str) -> bool:
        return any(
            os.path.isfile(head + _IMAGES) and os.path.isfile(head + cls.texts) for head in cls._heads(path)
        ) or (cls is ChineseClipReader and path.endswith(_IMAGES) and not MugeReader.recognises(path))

    def images(self) -> Iterator[ImageFile | Skipped]:
        for head in self.heads:
            file = head + _IMAGES
            self.covers.append(file + SEPARATOR)
            try:
                mtime_ns = os.stat(file).st_mtime_ns
                seen: set[str] = set()
                for row in rows(file):
                    if isinstance(row, BadRow):
                        yield Skipped(f"{file}:{row.line}", row.reason)
                        continue
                    path = file + SEPARATOR + row.id
                    if row.id in seen:
                        yield Skipped(f"{file}:{row.line}", "duplicate id", row.id)
                        continue
                    seen.add(row.id)
                    place = Place(file, "tsv", row.offset, row.size, mtime_ns=mtime_ns)
                    yield ImageFile(path, row.size, mtime_ns, place)
            except OSError as error:
                raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for head in self.heads:
            if os.path.isfile(head + self.texts):
                yield from named(self._lines(head), self.choice.fields)

    def _lines(self, head: str) -> Iterator[CaptionLine | BadLine]:
        file, (id_key, text_key, images_key) = head + self.texts, self.keys
        split = split_of(head)
        seen: set[Scalar] = set()
        for number, record in json_lines(file, self.choice.encoding):
            if isinstance(record, BadLine):
                yield record
                continue
            identity, images = record.get(id_key), record.get(images_key)
            try:
                if not isinstance(identity, (int, str)):
                    raise ValueError(f"no `{id_key}`")
                if not isinstance(images, list) or not all(isinstance(one, (int, str)) for one in images):
                    raise ValueError(f"`{images_key}` is not a list of ids")
                if not images:
                    raise ValueError(f"`{images_key}` is empty: no image belongs to this text")
                if identity in seen:
                    raise ValueError(f"duplicate {id_key}")
                text = caption(record.get(text_key))
            except ValueError as error:
                yield BadLine(file, number, str(error))
                continue
            seen.add(identity)
            fields = scalars(record, {text_key}) | ({"split": split} if split else {})
            for image in dict.fromkeys(images):
                yield CaptionLine(file, number, f"{head}{_IMAGES}{SEPARATOR}{image}", (("", text),), fields)


class MugeReader(ChineseClipReader):
    name = "muge"
    about = "MUGE: SPLIT_queries.jsonl and SPLIT_imgs.tsv"
    texts = "_queries.jsonl"
    keys = ("query_id", "query_text", "item_ids")
