"""What every dataset reader is: a stream of images, a stream of caption lines, and how both are found on disk."""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import ClassVar

from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.encodings import foreign
from brivl_search.corpus.text import BadLine
from brivl_search.corpus.walk import ImageFile, Skipped
from brivl_search.display import printable
from brivl_search.errors import UsageError

IMAGE_FOLDERS = (
    "", "images", "Images", "image", "imgs", "img",
    "train2014", "val2014", "test2014", "train2017", "val2017", "test2017",
    "Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k-images",
    "flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "Flickr30k-images",
    "caption_train_images_20170902", "caption_validation_images_20170910",
    "caption_test_a_images_20170922", "caption_test_b_images_20170923",
)  # fmt: skip
_SPLIT = re.compile(
    r"(?:^|[^a-z])(trainval|restval|minival|train|validation|valid|val|dev|test[ab]?)(?=images|$|[^a-z])", re.IGNORECASE
)
_SAME_SPLIT = {"valid": "val", "validation": "val", "dev": "val"}
_HAN, _OTHER_ASIAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]"), re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
_SAMPLE = 100


@dataclass(frozen=True)
class Choice:
    """How a dataset shall be read.

    Attributes:
        split: only this one; val, valid, validation and dev mean the same. None: all.
        images: the folder of the images; None: the customary places beside the annotations.
        fields: the caption fields wanted; None: all that the format gives.
        encoding: of the annotation files; None: UTF-8.
    """

    split: str | None = None
    images: str | None = None
    fields: tuple[str, ...] | None = None
    encoding: str | None = None


class Reader(ABC):
    """One dataset on disk. `images` and `lines` may be called again and again; each reads anew.

    Attributes:
        name: what --dataset-format takes.
        about: what the files look like, for help and messages.
        covers: after `images`: what the keys of its images begin with (folders with a trailing slash, containers with
            a trailing `::`).
        unreadable: after `images`: the parts of `covers` that could not be read to their end.
        unread: after `images`: pictures and videos that are not read, by `kinds.label`.
        passed: after `images`: pictures passed over on purpose, by why.
        repeats_count: whether the same caption twice for an image is two captions.
        where_images_lie: said where a folder of images is given and the dataset has its own; "": one may be given.
        shown: the path for messages about its lines.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    repeats_count: ClassVar[bool] = True
    where_images_lie: ClassVar[str] = ""

    def __init__(self, path: str, choice: Choice) -> None:
        """Looks for the dataset's files.

        Raises:
            UsageError: a folder of images is given where the dataset has its own.
            CorpusError: the path is not laid out like this.
        """
        self.path = self.shown = os.path.abspath(path)
        if choice.images is not None and self.where_images_lie:
            raise UsageError(f"`images`: the images of {printable(self.path)} {self.where_images_lie}")
        self.choice = choice
        self.covers: list[str] = []
        self.unreadable: list[str] = []
        self.unread: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()

    @classmethod
    @abstractmethod
    def recognises(cls, path: str) -> bool:
        """Whether a file or folder is laid out like this, by names and first bytes. Raises: OSError."""

    @abstractmethod
    def images(self) -> Iterator[ImageFile | Skipped]:
        """Every image, each once.

        Raises:
            UsageError: no such split, no such image folder.
            CorpusError: the files cannot be read or are not what they say.
        """

    @abstractmethod
    def lines(self) -> Iterator[CaptionLine | BadLine]:
        """The captions with the paths that `images` gives; call that first. Raises: CorpusError."""

    def field_names(self) -> list[str]:
        """The fields that `lines` would give if all were asked for."""
        everything = type(self)(self.path, replace(self.choice, fields=None))
        for _ in everything.images():
            pass
        names = (name for line in everything.lines() if isinstance(line, CaptionLine) for name, _ in line.texts)
        return list(dict.fromkeys(names))

    def wanted_split(self, split: str) -> bool:
        return self.choice.split is None or _canonical(split) == _canonical(self.choice.split)

    def check_split(self, there: Iterable[str]) -> None:
        """Raises: UsageError if a split was asked for and is not among these."""
        names = sorted({name for name in there if name})
        if self.choice.split is not None and not any(self.wanted_split(name) for name in names):
            known = f"has the splits {', '.join(names)}" if names else "is not divided into splits"
            raise UsageError(f"`split` {self.choice.split}: {printable(self.path)} {known}")


def _canonical(split: str) -> str:
    split = split.lower()
    return _SAME_SPLIT.get(split, split)


def split_of(path: str) -> str:
    """ "captions_train2014.json" → "train"; "" if a file's name tells no split."""
    found = _SPLIT.search(os.path.basename(path))
    return found[1].lower() if found else ""


def files_in(path: str, pattern: str, folders: Sequence[str] = ("",)) -> list[str]:
    """A file itself, or the files of a folder (and some folders in it) whose names match a pattern, sorted."""
    if os.path.isfile(path):
        return [path]
    found = []
    for folder in folders:
        folder = os.path.join(path, folder) if folder else path
        if os.path.isdir(folder):
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            found += [os.path.join(folder, name) for name in names if re.search(pattern, name, re.IGNORECASE)]
    return [file for file in found if os.path.isfile(file)]


def first_bytes(path: str, count: int = 4096) -> bytes:
    """The beginning of a file, to tell its layout; in UTF-8 where the file is of another encoding."""
    with open(path, "rb") as handle:
        head = handle.read(count)
    found = foreign(head)
    return head if found is None else head.decode(found.codec, "ignore").encode("utf-8", "ignore")


class Outside(Exception):
    """An annotation names a file outside the image folder, or no file name at all."""


class ImageFinder:
    """Image names of annotations → files, in the folders where datasets keep them, and never outside of these.

    Args:
        beside: folders of the annotation files; the customary places are looked for in them and one level above.
        images: the folder given with --images; it alone counts then.

    Raises:
        UsageError: `images` is no folder.
    """

    def __init__(self, beside: Sequence[str], images: str | None) -> None:
        if images is not None:
            if not os.path.isdir(images):
                raise UsageError(f"`images` {printable(images)}: no such folder")
            self.folders = [os.path.abspath(images)]
        else:
            around = [place for folder in beside for place in (folder, os.path.dirname(folder))]
            places = [os.path.join(folder, name) if name else folder for folder in around for name in IMAGE_FOLDERS]
            self.folders = [folder for folder in dict.fromkeys(places) if os.path.isdir(folder)]
        self.used: set[str] = set()
        self._found: dict[str, str] = {}

    def find(self, name: str, endings: Sequence[str] = ("",)) -> str:
        """The absolute path of an image; one that need not exist if it is in none of the folders.

        Args:
            name: as the annotation gives it.
            endings: added to the name, tried in order (annotations that leave out the extension).

        Raises:
            Outside: the path is not below an image folder.
        """
        if name in self._found:
            return self._found[name]
        if not name or "\0" in name:
            raise Outside("no file name")
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise Outside("lone surrogates") from error
        fallback = None
        for folder in self.folders:
            for ending in endings:
                path = os.path.normpath(os.path.join(folder, name + ending))
                if not path.startswith(os.path.join(folder, "")):
                    continue
                fallback = fallback or path
                if os.path.isfile(path):
                    self.used.add(folder)
                    self.folders.sort(key=folder.__ne__)  # where one was, the next one is
                    self._found[name] = path
                    return path
        if fallback is None:
            raise Outside("outside the image folder (`images` names the folder that holds all of them)")
        return fallback

    def image(self, name: str, endings: Sequence[str] = ("",)) -> ImageFile | Skipped:
        """The file of an image, or why there is none."""
        try:
            path = self.find(name, endings)
        except Outside as error:
            return Skipped(name, "not in the image folder", str(error))
        return stat_image(path)


def stat_image(path: str) -> ImageFile | Skipped:
    """The file of an image, or why it cannot be one."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Skipped(path, "no such file")
    except (OSError, ValueError) as error:
        reason = "permission denied" if isinstance(error, PermissionError) else "read error"
        return Skipped(path, reason, getattr(error, "strerror", None) or str(error))
    if not stat.S_ISREG(status.st_mode):
        return Skipped(path, "not a regular file")
    if not status.st_size:
        return Skipped(path, "empty file")
    return ImageFile(path, status.st_size, status.st_mtime_ns)


def once(found: Iterable[ImageFile | Skipped]) -> Iterator[ImageFile | Skipped]:
    """Each path once."""
    seen: set[str] = set()
    for one in found:
        if one.path not in seen:
            seen.add(one.path)
            yield one


def caption(text: object) -> str:
    """A caption as it is indexed. Raises: ValueError with a short, countable reason."""
    if not isinstance(text, str):
        raise ValueError("the caption is not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("lone surrogates in the caption") from error
    text = " ".join(text.split())
    if not text:
        raise ValueError("empty caption")
    return text


def language(texts: Sequence[str]) -> str:
    """The field that captions belong to, by their script: "zh", "en" (Latin), else "captions"."""
    if not texts:
        return "captions"
    han = sum(bool(_HAN.search(text)) for text in texts) / len(texts)
    if sum(bool(_OTHER_ASIAN.search(text)) for text in texts) > 0.2 * len(texts):
        return "captions"
    if han >= 0.5:
        return "zh"
    letters = [c for text in texts for c in text if c.isalpha()]
    return "en" if letters and sum(c < "\u0250" for c in letters) > 0.9 * len(letters) else "captions"


def named(
    lines: Iterator[CaptionLine | BadLine], wanted: Sequence[str] | None, field: str = ""
) -> Iterator[CaptionLine | BadLine]:
    """Gives captions whose format names no field ("") one, by the script of the first hundred, and keeps the wanted."""
    head = list(islice(lines, _SAMPLE))
    if not field:
        field = language([t for line in head if isinstance(line, CaptionLine) for name, t in line.texts if not name])
    for line in chain(head, lines):
        if isinstance(line, CaptionLine):
            texts = [(name or field, text) for name, text in line.texts]
            line = replace(line, texts=tuple((name, text) for name, text in texts if not wanted or name in wanted))
        yield line
