"""AI Challenger's image captions (AIC-ICC), and other JSON lists of images with their captions.

    [{"url": "http://...", "image_id": "8f00f3d0f1008e085ab660e70dffced16a8259f6.jpg", "caption": ["...", "..."]}]
    caption_validation_annotations_20170910.json beside caption_validation_images_20170910/

`image` in place of `image_id`, and one string as `caption`, are read too (BLIP's files, COCO-CN among them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.fields import scalars
from brivl_search.corpus.readers.base import first_bytes, split_of
from brivl_search.corpus.readers.coco import JsonReader
from brivl_search.corpus.text import BadLine
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import CorpusError

_ENDINGS = ("", ".jpg", ".jpeg", ".png")


class AicIccReader(JsonReader):
    name = "aic-icc"
    about = 'AIC-ICC JSON: [{"image_id": "a.jpg", "caption": [...]}]'

    @classmethod
    def looks_right(cls, file: str) -> bool:
        head = first_bytes(file, 16384).lstrip(b"\xef\xbb\xbf \t\r\n")
        return head.startswith(b"[") and b'"caption"' in head and (b'"image_id"' in head or b'"image"' in head)

    def in_file(self, file: str) -> bool:
        return self.choice.split is None or not split_of(file) or self.wanted_split(split_of(file))

    def check(self) -> None:
        named = [split_of(file) for file in self.all_files]
        told = [str(one["split"]) for file in self.all_files if not split_of(file) for one in self.records(file)
                if isinstance(one, dict) and "split" in one]  # fmt: skip
        self.check_split(named + told)

    def records(self, file: str) -> list[Any]:
        body = self.parsed(file)
        if not isinstance(body, list):
            raise CorpusError(f"{printable(file)} is not a JSON list of images with captions")
        return body

    def entries(self, file: str) -> Iterator[tuple[int, dict[str, Any], str]]:
        """(number, record, image) of the records of the split; image is "" where none is named."""
        for number, one in enumerate(self.records(file), start=1):
            one = one if isinstance(one, dict) else {}
            if split_of(file) or self.choice.split is None or self.wanted_split(str(one.get("split", ""))):
                image = one.get("image_id", one.get("image"))
                yield number, one, image if isinstance(image, str) else ""

    def images_of(self, file: str) -> Iterator[ImageFile | Skipped]:
        for number, _, image in self.entries(file):
            found = self.finder.image(image, _ENDINGS) if image else Skipped(f"{file}:{number}", "no image_id")
            yield found

    def lines_of(self, file: str) -> Iterator[CaptionLine | BadLine]:
        for number, one, image in self.entries(file):
            fields = scalars(one, {"image_id", "image", "caption", "zh", "en", "captions"})
            yield self.line(file, number, image, one.get("caption"), fields)
