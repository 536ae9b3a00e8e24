"""webdataset tars, and what img2dataset writes as plain files: samples whose files share a name.

    00000.tar: 000000000.jpg 000000000.txt 000000000.json 000000001.jpg ...
    00000/000000000.jpg 00000/000000000.txt 00000/000000000.json ...

The caption is the .txt, else "caption" in the .json, whose scalars become fields. Tars are read where they lie; the
files of a sample follow each other there.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from brivl_search.corpus import kinds
from brivl_search.corpus.captions import CaptionLine
from brivl_search.corpus.containers import tar
from brivl_search.corpus.containers.place import SEPARATOR, Place
from brivl_search.corpus.encodings import NotText, decode
from brivl_search.corpus.fields import Fields, scalars_and_lists
from brivl_search.corpus.readers.base import Choice, Reader, caption, files_in, named, split_of, stat_image
from brivl_search.corpus.rules import is_system, is_thumbnail
from brivl_search.corpus.text import NOT_UTF8, BadLine
from brivl_search.corpus.walk import ImageFile, Skipped, image_extensions
from brivl_search.display import printable
from brivl_search.errors import CorpusError

MAX_TEXT_BYTES = 1 << 20
_TEXTS = (".txt", ".caption")
_NOT_FIELDS = {"caption", "captions", "error_message", "exif", "status"}


@dataclass(slots=True)
class _Sample:
    """Files that share a name: extension -> how to read it."""

    name: str
    number: int
    images: list[str] = field(default_factory=list)
    texts: dict[str, Any] = field(default_factory=dict)


class _Samples(Reader):
    """What both layouts share: a caption line of each sample."""

    @abstractmethod
    def samples(self, place: str) -> Iterator[_Sample]:
        """The samples of one tar or folder, in order."""

    @abstractmethod
    def text(self, place: str, where: Any) -> bytes:
        """A text of a sample, at most MAX_TEXT_BYTES + 1 bytes. Raises: OSError."""

    def line(self, place: str, sample: _Sample, split: str) -> CaptionLine | BadLine | None:
        """What is said about a sample's image; None if nothing is, or there is no image."""
        if not sample.images or not sample.texts:
            return None
        fields: Fields = {"split": split} if split else {}
        found: list[str] = []
        try:
            told = self._json(place, sample)
            fields |= scalars_and_lists(told, _NOT_FIELDS)
            ending = next((ending for ending in _TEXTS if ending in sample.texts), None)
            if ending is not None:
                found = [caption(self._decoded(self.text(place, sample.texts[ending])))]
            elif told.get("caption"):
                given = told["caption"]
                found = [caption(one) for one in (given if isinstance(given, list) else [given])]
        except (ValueError, OSError) as error:
            return BadLine(place, sample.number, f"{sample.name}: {error}")
        return CaptionLine(place, sample.number, sample.images[0], tuple(("", text) for text in found), fields)

    def _json(self, place: str, sample: _Sample) -> dict[str, Any]:
        if ".json" not in sample.texts:
            return {}
        try:
            told = json.loads(self._decoded(self.text(place, sample.texts[".json"])))
        except RecursionError as error:
            raise ValueError("its .json is nested too deeply") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"its .json is not JSON ({error.msg})") from error
        if not isinstance(told, dict):
            raise ValueError("its .json is not an object")
        return told

    def _decoded(self, data: bytes) -> str:
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(f"a text longer than {MAX_TEXT_BYTES:,} bytes")
        try:
            return decode(data, self.choice.encoding)
        except NotText as error:
            if self.choice.encoding is not None:
                raise ValueError(str(error)) from error
            seems = (
                f": it seems to be {error.guess.name}, `encoding` {error.guess.codec} reads it" if error.guess else ""
            )
            raise ValueError(f"{NOT_UTF8}{seems}") from error


def _left_out(name: str) -> str:
    """Why a member is passed over, as its file in a folder would be; "": it is not."""
    *folders, base = name.split("/")
    if system := next((one for one in folders if is_system(one)), ""):
        return system
    if is_thumbnail(base):
        return "thumbnail"
    return "hidden" if base.startswith("._") else ""  # what macOS puts beside a file


class WebDatasetReader(_Samples):
    name = "webdataset"
    about = "webdataset: tars with KEY.jpg, KEY.txt, KEY.json"
    where_images_lie = "are inside the tar"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        tars = files_in(self.path, r"\.tar$")
        if not tars:
            raise CorpusError(f"{printable(self.path)} holds no .tar")
        self.check_split(map(split_of, tars))
        self.tars = [file for file in tars if choice.split is None or self.wanted_split(split_of(file))]
        self._open: tuple[str, BinaryIO] | None = None

    @classmethod
    def recognises(cls, path: str) -> bool:
        if os.path.isfile(path):
            return path.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))
        return bool(files_in(path, r"\.tar$"))

    def _kind(self, file: str, member: tar.Member) -> kinds.Kind | None:
        """What a member is: by its ending, or by its first bytes, as files in folders. Raises: OSError."""
        ending = kinds.ending_of(os.path.basename(member.name))
        if kinds.may_be_picture(ending):
            return kinds.by_content(self._bytes(file, member.offset, min(member.size, kinds.HEAD)))
        return kinds.by_ending(ending)

    def _is_picture(self, file: str, member: tar.Member) -> bool:
        kind = self._kind(file, member)
        return kind is not None and kinds.is_read(kind) and not _left_out(member.name)

    def images(self) -> Iterator[ImageFile | Skipped]:
        self.unread.clear()
        self.passed.clear()
        for file in self.tars:
            self.covers.append(file + SEPARATOR)
            seen: set[str] = set()
            try:
                mtime_ns = os.stat(file).st_mtime_ns
                for member in tar.members(file):
                    if isinstance(member, tar.Damage):
                        self.unreadable.append(file + SEPARATOR)
                        yield Skipped(file, "truncated", f"the tar cannot be read from byte {member.offset} on: "
                                                         f"{member.detail}")  # fmt: skip
                        continue
                    kind = self._kind(file, member)
                    if kind is None:
                        continue
                    path = file + SEPARATOR + member.name
                    if why := _left_out(member.name):
                        self.passed[why] += 1
                    elif kind in kinds.UNREAD:
                        self.unread[kinds.label(kinds.ending_of(os.path.basename(member.name)), kind)] += 1
                    elif not kinds.is_read(kind):
                        yield Skipped(path, "unsupported format", kind.remedy)
                    elif path in seen:
                        yield Skipped(path, "duplicate id", "a member of this name came before")
                    elif not member.size:
                        yield Skipped(path, "empty file")
                    else:
                        place = Place(file, "tar", member.offset, member.size, mtime_ns=mtime_ns)
                        yield ImageFile(path, member.size, mtime_ns, place)
                    seen.add(path)
            except OSError as error:
                raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
            finally:
                self.close()

    def samples(self, place: str) -> Iterator[_Sample]:
        sample, seen = _Sample("", 0), set()
        for number, member in enumerate(tar.members(place), start=1):
            if isinstance(member, tar.Damage):
                continue
            folder, _, base = member.name.rpartition("/")
            key, _, ending = base.partition(".")
            if not key:
                continue
            name = f"{folder}/{key}" if folder else key
            if name != sample.name:
                yield sample
                sample = _Sample(name, number)
            if self._is_picture(place, member):
                if member.name not in seen:
                    sample.images.append(place + SEPARATOR + member.name)
                seen.add(member.name)
            elif f".{ending}".lower() in (*_TEXTS, ".json"):
                sample.texts[f".{ending}".lower()] = member
        yield sample

    def text(self, place: str, where: Any) -> bytes:
        return self._bytes(place, where.offset, min(where.size, MAX_TEXT_BYTES + 1))

    def _bytes(self, place: str, offset: int, size: int) -> bytes:
        if self._open is None or self._open[0] != place:
            self.close()
            self._open = (place, open(place, "rb"))  # noqa: SIM115  (closed by `close`, kept for the texts that follow)
        self._open[1].seek(offset)
        return self._open[1].read(size)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        for file in self.tars:
            made = (self.line(file, sample, split_of(file)) for sample in self.samples(file))
            try:
                yield from named((line for line in made if line is not None), self.choice.fields)
            except OSError as error:
                raise CorpusError(f"cannot read {printable(file)}: {error.strerror or error}") from error
            finally:
                self.close()


class Img2DatasetReader(_Samples):
    name = "img2dataset"
    about = "img2dataset's files: 00000/000000000.jpg with .txt and .json beside it"
    where_images_lie = "lie beside their texts"

    def __init__(self, path: str, choice: Choice) -> None:
        super().__init__(path, choice)
        if not os.path.isdir(self.path):
            raise CorpusError(f"{printable(self.path)} is not a folder: {self.about}")
        self.check_split(())
        self.folders = list(self._folders(self.path))

    @staticmethod
    def _folders(path: str) -> Iterator[str]:
        """The folder and its numbered subfolders, sorted."""
        yield path
        yield from (os.path.join(path, name) for name in sorted(os.listdir(path)) if name.isdigit())

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether an image with a text of the same name beside it lies in the folder or in its first numbered one."""
        if not os.path.isdir(path):
            return False
        for _, folder in zip(range(2), cls._folders(path), strict=False):
            names = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            for name in names:
                stem, ending = os.path.splitext(name)
                if ending.lower() in image_extensions() and {stem + ".txt", stem + ".json"} & names:
                    return True
        return False

    def images(self) -> Iterator[ImageFile | Skipped]:
        self.covers = [os.path.join(self.path, "")]
        for folder in self.folders:
            for sample in self.samples(folder):
                yield from map(stat_image, sample.images)

    def samples(self, place: str) -> Iterator[_Sample]:
        extensions, sample = image_extensions(), _Sample("", 0)
        if not os.path.isdir(place):
            return
        for number, name in enumerate(sorted(os.listdir(place)), start=1):
            stem, ending = os.path.splitext(name)
            if not stem or name.startswith("."):
                continue
            if stem != sample.name:
                yield sample
                sample = _Sample(stem, number)
            if ending.lower() in extensions:
                sample.images.append(os.path.join(place, name))
            elif ending.lower() in (*_TEXTS, ".json"):
                sample.texts[ending.lower()] = os.path.join(place, name)
        yield sample

    def text(self, place: str, where: Any) -> bytes:
        with open(os.open(where, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as handle:
            return handle.read(MAX_TEXT_BYTES + 1) or b""

    def lines(self) -> Iterator[CaptionLine | BadLine]:
        made = (self.line(folder, sample, "") for folder in self.folders for sample in self.samples(folder))
        yield from named((line for line in made if line is not None), self.choice.fields)
