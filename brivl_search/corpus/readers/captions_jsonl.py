"""captions.jsonl, our own format, as a dataset: the images that its lines name, wherever they lie."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from brivl_search.corpus.captions import CaptionLine, caption_fields, read_captions
from brivl_search.corpus.readers.base import Choice, Reader, once, stat_image
from brivl_search.corpus.text import BadLine, json_lines, seems_to_be
from brivl_search.corpus.walk import CAPTIONS_NAME, ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import UsageError


class CaptionsReader(Reader):
    name = "captions"
    about = 'captions.jsonl: {"image": "a.jpg", "zh": [...], "en": "..."}'
    repeats_count = False

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        self.file = os.path.join(self.path, CAPTIONS_NAME) if os.path.isdir(self.path) else self.path
        if not os.path.lexists(self.file):
            raise UsageError(f"{printable(self.path)} has no {CAPTIONS_NAME}")
        self.shown = self.file

    @classmethod
    def recognises(cls, path: str) -> bool:
        if os.path.isdir(path):
            return os.path.lexists(os.path.join(path, CAPTIONS_NAME))
        if os.path.basename(path) == CAPTIONS_NAME:
            return True
        if not path.lower().endswith(".jsonl") or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        seems = seems_to_be(path)
        lines = json_lines(path, None if seems is None else seems.codec)
        first = next((line for _, line in lines if isinstance(line, dict)), {})
        return "image" in first

    def images(self) -> Iterator[ImageFile | Skipped]:
        if self.choice.images is not None:
            raise UsageError("`images`: the lines of captions.jsonl say where their images lie, relative to the file")
        yield from once(stat_image(line.image) for line in self.lines() if isinstance(line, CaptionLine))
        self.covers = [os.path.join(os.path.dirname(self.file), "")]

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        there = self.choice.split is None
        for line in read_captions(self.file, self.choice.fields, self.choice.encoding):
            if self.choice.split is None or isinstance(line, BadLine):
                yield line
            elif self.wanted_split(str(line.fields.get("split", ""))):
                there = True
                yield line
        if not there:
            self.check_split(())

    def field_names(self) -> list[str]:
        return caption_fields(self.file, self.choice.encoding)
