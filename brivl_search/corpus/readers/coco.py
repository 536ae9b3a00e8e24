"""COCO captions JSON, which COCO-CN and many others use too, and Karpathy's dataset_*.json.

coco      {"images": [{"id": 9, "file_name": "a.jpg", ...}], "annotations": [{"image_id": 9, "id": 1, "caption": ""}]}
          captions_train2014.json, usually in annotations/ beside train2014/
karpathy  {"images": [{"filename": "a.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": ""}]}]}
          dataset_coco.json, dataset_flickr30k.json
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from brivl_search.corpus.captions import CaptionLine
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
from brivl_search.corpus.text import BadLine, json_file
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import CorpusError

_FOLDERS = ("", "annotations", "captions")
_ENDINGS = ("", ".jpg", ".jpeg", ".png")
_IN_RECORDS = {"id", "file_name", "width", "height"}  # of an image: its id is the annotation's image_id


class JsonReader(Reader):
    """What readers of JSON annotations share: their files, and the rules for images and splits."""

    pattern = r"\.json$"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        files = [self.path] if os.path.isfile(self.path) else self.find(self.path)
        if not files:
            raise CorpusError(f"{printable(self.path)} holds no file like this: {self.about}")
        self.all_files = files
        self.files = [file for file in files if self.in_file(file)]
        self.finder = ImageFinder(list(dict.fromkeys(map(os.path.dirname, files))), choice.images)
        self._parsed: dict[str, Any] = {}

    @classmethod
    def find(cls, folder: str) -> list[str]:
        return [file for file in files_in(folder, cls.pattern, _FOLDERS) if cls.looks_right(file)]

    @classmethod
    def recognises(cls, path: str) -> bool:
        if os.path.isdir(path):
            return bool(cls.find(path))
        return path.lower().endswith(".json") and cls.looks_right(path)

    @classmethod
    def looks_right(cls, file: str) -> bool:
        """By the first bytes of the file: parsing a large one to learn its kind would cost seconds."""
        raise NotImplementedError

    def in_file(self, file: str) -> bool:
        return self.choice.split is None or self.wanted_split(split_of(file))

    def parsed(self, file: str) -> Any:
        if file not in self._parsed:
            self._parsed[file] = json_file(file, self.choice.encoding)
        return self._parsed[file]

    def images(self) -> Iterator[ImageFile | Skipped]:
        self.check()
        yield from once(one for file in self.files for one in self.images_of(file))
        self._parsed.clear()  # hours may pass before the lines are asked for; parsing anew takes seconds
        self.covers = [os.path.join(folder, "") for folder in sorted(self.finder.used)]

    def check(self) -> None:
        self.check_split(split_of(file) for file in self.all_files)

    def images_of(self, file: str) -> Iterator[ImageFile | Skipped]:
        raise NotImplementedError

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for file in self.files:
            yield from named(self.lines_of(file), self.choice.fields)
            self._parsed.pop(file, None)

    def lines_of(self, file: str) -> Iterator[CaptionLine | BadLine]:
        raise NotImplementedError

    def line(
        self, file: str, number: int, image: str, texts: object, fields: dict[str, Scalar]
    ) -> CaptionLine | BadLine:
        """One caption or a list of them, of the image that an annotation names."""
        try:
            path = self.finder.find(image, _ENDINGS)
            found = [caption(text) for text in (texts if isinstance(texts, list) else [texts])]
        except (Outside, ValueError) as error:
            return BadLine(file, number, str(error))
        if split := split_of(file):
            fields = {"split": split, **fields}
        return CaptionLine(file, number, path, tuple(("", text) for text in found), fields)


class CocoReader(JsonReader):
    name = "coco"
    about = 'COCO or COCO-CN captions JSON: {"images": [...], "annotations": [...]}'

    @classmethod
    def looks_right(cls, file: str) -> bool:
        """Whether it begins as an object of COCO's, and is none of detections, panoptics, ... by its name."""
        head = first_bytes(file).lstrip(b"\xef\xbb\xbf \t\r\n")
        keys = (b'"images"', b'"annotations"', b'"info"', b'"licenses"', b'"type"')
        other = os.path.basename(file).startswith(("instances_", "person_keypoints_", "panoptic_", "stuff_"))
        return head.startswith(b"{") and head[1:].lstrip().startswith(keys) and not other and b'"sentences"' not in head

    def tables(self, file: str) -> tuple[list[Any], list[Any]]:
        body = self.parsed(file)
        images = body.get("images") if isinstance(body, dict) else None
        annotations = body.get("annotations") if isinstance(body, dict) else None
        if not isinstance(images, list) or not isinstance(annotations, list):
            raise CorpusError(f'{printable(file)} is not COCO JSON: it has no lists "images" and "annotations"')
        if annotations and not any(isinstance(one, dict) and "caption" in one for one in annotations):
            raise CorpusError(f"{printable(file)} is COCO JSON without captions: name the file captions_*.json")
        return images, annotations

    def entries(self, file: str) -> Iterator[tuple[object, str | None, dict[str, Any], str]]:
        """(id, file name or None, image object, what is wrong) of each image, in order."""
        seen: set[object] = set()
        for one in self.tables(file)[0]:
            if not isinstance(one, dict) or not isinstance(one.get("id"), (int, str)):
                yield None, None, {}, "an image without an id"
                continue
            wrong = ""
            if not isinstance(one.get("file_name"), str):
                wrong = "an image without a file_name"
            elif one["id"] in seen:
                wrong = "duplicate id"
            seen.add(one["id"])
            yield one["id"], one.get("file_name") if not wrong else None, one, wrong

    def images_of(self, file: str) -> Iterator[ImageFile | Skipped]:
        for number, (identity, name, _, wrong) in enumerate(self.entries(file), start=1):
            if name is None:
                yield Skipped(f"{file}:{number}", wrong, f"image {identity}"[:200])
            else:
                yield self.finder.image(name, _ENDINGS)

    def lines_of(self, file: str) -> Iterator[CaptionLine | BadLine]:
        images = {identity: (name, one) for identity, name, one, _ in self.entries(file) if name is not None}
        seen: set[object] = set()
        for number, one in enumerate(self.tables(file)[1], start=1):
            if not isinstance(one, dict):
                yield BadLine(file, number, "the annotation is not an object")
                continue
            key, identity = one.get("image_id"), one.get("id")
            if not isinstance(key, (int, str)) or key not in images:
                yield BadLine(file, number, "an image_id that no image has", repr(key)[:100])
                continue
            if isinstance(identity, (int, str)):
                if identity in seen:
                    yield BadLine(file, number, "duplicate id", f"annotation {identity}"[:200])
                    continue
                seen.add(identity)
            name, image = images[key]
            fields = scalars(image, _IN_RECORDS) | scalars(one, {"caption"})
            yield self.line(file, number, str(name), one.get("caption"), fields)


class KarpathyReader(JsonReader):
    name = "karpathy"
    about = 'Karpathy split JSON: {"images": [{"filename": ..., "split": ..., "sentences": [...]}]}'

    @classmethod
    def looks_right(cls, file: str) -> bool:
        head = first_bytes(file, 16384).lstrip(b"\xef\xbb\xbf \t\r\n")
        return head.startswith(b"{") and b'"sentences"' in head and b'"filename"' in head

    def in_file(self, file: str) -> bool:
        return True

    def check(self) -> None:
        names = (str(one.get("split", "")) for file in self.files for one in self.entries(file, every=True))
        self.check_split(names)

    def entries(self, file: str, every: bool = False) -> list[dict[str, Any]]:
        body = self.parsed(file)
        images = body.get("images") if isinstance(body, dict) else None
        if not isinstance(images, list):
            raise CorpusError(f'{printable(file)} is not Karpathy\'s JSON: it has no list "images"')
        objects = [one if isinstance(one, dict) else {} for one in images]
        return [one for one in objects if every or self.wanted_split(str(one.get("split", "")))]

    @staticmethod
    def file_name(one: dict[str, Any]) -> str:
        folder, name = one.get("filepath", ""), one.get("filename", "")
        return os.path.join(folder, name) if isinstance(name, str) and isinstance(folder, str) else ""

    def images_of(self, file: str) -> Iterator[ImageFile | Skipped]:
        for one in self.entries(file):
            yield self.finder.image(self.file_name(one))

    def lines_of(self, file: str) -> Iterator[CaptionLine | BadLine]:
        without = {"filename", "filepath", "sentences", "sentids"}
        for number, one in enumerate(self.entries(file), start=1):
            sentences = one.get("sentences")
            if not isinstance(sentences, list):
                yield BadLine(file, number, "no list `sentences`")
                continue
            for sentence in sentences:
                raw, identity = (sentence.get("raw"), sentence) if isinstance(sentence, dict) else (None, {})
                fields = scalars(one, without) | scalars(identity, {"raw", "imgid"})
                yield self.line(file, number, self.file_name(one), raw, fields)
