"""Token files of Flickr8k, Flickr30k, their Chinese versions and COCO-CN: a line for each caption.

    1000268201_693b08cb0e.jpg#0	A child in a pink dress .          Flickr8k.token.txt, results_20130124.token
    1000092795#zhc#0 两个男孩在草地上。                               flickr8kzhc.caption.txt, Flickr30k-CN
    COCO_train2014_000000000009#0	一张木桌上放着水果。               COCO-CN's imageid.human-written-caption.txt

A list of image names beside them (Flickr_8k.testImages.txt, flickr8ktest.txt, coco-cn_test.txt) is a split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.fields import Scalar
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
from brivl_search.corpus.text import BadLine, text_lines
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.errors import CorpusError

_LINE = re.compile(r"(?P<image>[^#\t]+?)#(?:(?P<code>[a-z]{2,4})#)?\d+(?:#\d+)?[ \t]+(?P<text>.*\S)", re.IGNORECASE)
_CODES = {"zhc": "zh", "zhm": "zh", "zhb": "zh", "zh": "zh", "enc": "en", "en": "en"}
_NAMES = r"(token|caption)[^/]*\.txt$|\.token$"
_LISTS = r"(train|val|dev|test)[^/]*\.txt$"
_ENDINGS = ("", ".jpg", ".jpeg", ".png")
_FOLDERS = ("", "captions", "annotations", "Flickr8k_text")


class FlickrReader(Reader):
    name = "flickr"
    about = "Flickr8k/30k(-CN) token files: IMAGE#N<TAB>caption"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        files = [file for file in files_in(self.path, _NAMES, _FOLDERS) if self._is_tokens(file)]
        if not os.path.isfile(self.path):  # what a release holds beside the captions: lemmas, segmented words
            files = [file for file in files if not re.search(r"lemma|seg\b|bosonseg", os.path.basename(file))]
        if not files:
            raise CorpusError(f"{self.path} holds no token file, whose lines are IMAGE#N<TAB>caption")
        self.files = files
        self.finder = ImageFinder(list(dict.fromkeys(map(os.path.dirname, files))), choice.images)
        self.splits = self._lists()
        self.check_split([*self.splits.values(), *map(split_of, files)])

    @classmethod
    def recognises(cls, path: str) -> bool:
        if os.path.isfile(path):
            return path.lower().endswith((".txt", ".token")) and cls._is_tokens(path)
        return any(cls._is_tokens(file) for file in files_in(path, _NAMES, _FOLDERS))

    @staticmethod
    def _is_tokens(file: str) -> bool:
        lines = first_bytes(file, 16384).decode("utf-8", "ignore").lstrip("\ufeff").splitlines()
        lines = [line for line in lines[:-1] or lines if line.strip()][:20]
        return bool(lines) and sum(bool(_LINE.match(line)) for line in lines) > len(lines) / 2

    def _lists(self) -> dict[str, str]:
        """Image name without its ending -> split, out of the lists beside the token files."""
        splits: dict[str, str] = {}
        for folder in dict.fromkeys(map(os.path.dirname, self.files)):
            for file in files_in(folder, _LISTS):
                if file not in self.files and not self._is_tokens(file) and (split := split_of(_apart(file))):
                    for _, line in text_lines(file, self.choice.encoding):
                        if isinstance(line, str):
                            splits[_stem(line.strip())] = split
        return splits

    def images(self) -> Iterator[ImageFile | Skipped]:
        names = dict.fromkeys(image for file in self.files for image in self._names(file))
        yield from once(self.finder.image(image, _ENDINGS) for image in names)
        self.covers = [os.path.join(folder, "") for folder in sorted(self.finder.used)]

    def _names(self, file: str) -> Iterator[str]:
        for _, line in text_lines(file, self.choice.encoding):
            if isinstance(line, str) and (found := _LINE.match(line)):
                image = found["image"].strip()
                if self.wanted_split(self._split(image, file)):
                    yield image

    def _split(self, image: str, file: str) -> str:
        return self.splits.get(_stem(image)) or split_of(_apart(file))

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for file in self.files:
            yield from named(self._lines(file), self.choice.fields)

    def _lines(self, file: str) -> Iterator[CaptionLine | BadLine]:
        for number, line in text_lines(file, self.choice.encoding):
            if isinstance(line, BadLine):
                yield line
                continue
            found = _LINE.match(line)
            if not found:
                yield BadLine(file, number, "not IMAGE#N<TAB>caption")
                continue
            image = found["image"].strip()
            split = self._split(image, file)
            if not self.wanted_split(split):
                continue
            try:
                path, text = self.finder.find(image, _ENDINGS), caption(found["text"])
            except (Outside, ValueError) as error:
                yield BadLine(file, number, str(error))
                continue
            fields: dict[str, Scalar] = {"split": split} if split else {}
            yield CaptionLine(file, number, path, ((_CODES.get((found["code"] or "").lower(), ""), text),), fields)


def _apart(file: str) -> str:
    """A file's name with the word that tells its split set apart: flickr8ktest.txt, Flickr_8k.testImages.txt."""
    return re.sub(r"(train|val|dev|test)(?=[^a-z]|images)", r"_\1", os.path.basename(file), flags=re.IGNORECASE)


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name.split("#", 1)[0])
    return stem if ending.lower() in _ENDINGS else name.split("#", 1)[0]
