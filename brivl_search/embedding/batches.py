"""Pictures and texts → vectors without an index, a batch at a time; and files of them that `import` takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.containers.access import locate
from brivl_search.corpus.containers.place import SEPARATOR, split
from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.sources import DatasetChoice, find_sources
from brivl_search.corpus.walk import ImageFile, Scan, Skipped
from brivl_search.display import as_given, printable
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.errors import CorpusError, ImageError, UsageError

DType = Literal["float32", "float16"]
TEXT_BATCH = 256


@dataclass(frozen=True)
class Pictures:
    """The images that some paths name.

    Attributes:
        files: the images, sorted by absolute path.
        skipped: files that look like images and were passed over.
        given: absolute path → the path as it was typed.
    """

    files: list[ImageFile]
    skipped: list[Skipped]
    given: Mapping[str, str]

    def as_given(self, path: str) -> str:
        """An image's path for people: itself, its folder or its container as that was typed."""
        container, _, member = path.partition(SEPARATOR)
        if path in self.given or (member and container in self.given):
            return self.given.get(path) or self.given[container] + SEPARATOR + member
        return as_given(path, [(typed, absolute) for absolute, typed in self.given.items()])


def find_pictures(paths: Sequence[Path | str], *, include_hidden: bool = False) -> Pictures:
    """Image files, all images below folders, those of datasets (tars, annotation files), and CONTAINER::MEMBER.

    Raises:
        UsageError: a path does not exist.
        CorpusError: there is no image.
    """
    members: list[ImageFile] = []
    plain: list[Path | str] = []
    for path in paths:
        absolute = os.path.abspath(path)
        if split(absolute):
            members.append(_member(absolute))
        elif os.path.lexists(path):
            plain.append(path)
        else:
            raise UsageError(f"no such file or folder: {printable(os.fspath(path))}: check the path")
    scan = find_sources(plain, DatasetChoice(), include_hidden=include_hidden, files=True).scan if plain else Scan(())
    files = {file.path: file for file in (*scan.images, *members)}
    if not files:
        raise CorpusError(f"no images: {scan.describe_empty()}" if scan.roots else "no images among the files named")
    given = {os.path.abspath(path): os.fspath(path) for path in paths}
    return Pictures([files[path] for path in sorted(files)], scan.skipped, given)


def _member(path: str) -> ImageFile:
    try:
        place = locate(path)
    except ImageError as error:
        raise UsageError(f"{printable(path)}: {error}") from None
    assert place is not None  # split has said so
    return ImageFile(path, place.size, place.mtime_ns, place)


@dataclass(frozen=True)
class Embedded:
    """One picture, and its vector float32 (dim,), unit length; None if it was skipped (`decoded.reason`)."""

    decoded: Decoded
    vector: NDArray[np.float32] | None


def embed_images(
    files: Sequence[ImageFile],
    encoder: Encoder,
    *,
    workers: int | None = None,
    batch_size: int = 64,
    max_megapixels: float = MAX_MEGAPIXELS,
    advance: Callable[[int], None] = lambda steps: None,
) -> Iterator[Embedded]:
    """Every file in order, decoded in worker processes and embedded a batch at a time; what cannot be read is named.

    Args:
        files: the images.
        encoder: the model.
        workers: decoding processes; None: one a CPU; 0: none.
        batch_size: pictures a forward pass.
        max_megapixels: skip larger ones.
        advance: told how many files are done.
    """
    waiting: list[Decoded] = []
    ready = 0

    def batch() -> Iterator[Embedded]:
        pixels = [one.pixels for one in waiting if one.pixels is not None]
        origins = [Origin(one.file.path, one.width, one.height) for one in waiting if one.pixels is not None]
        vectors = iter(encode_pictures(encoder, np.stack(pixels), origins) if pixels else ())
        advance(len(waiting))
        for one in waiting:
            yield Embedded(one, None if one.pixels is None else next(vectors))
        waiting.clear()

    for decoded in decode_all(
        files,
        encoder.pixels,
        workers=default_workers() if workers is None else workers,
        max_megapixels=max_megapixels,
        ahead=max(4 * batch_size, 256),
    ):
        waiting.append(decoded)
        ready += decoded.pixels is not None
        if ready == batch_size or len(waiting) == 8 * batch_size:
            yield from batch()
            ready = 0
    yield from batch()


def embed_texts(texts: Sequence[str], encoder: Encoder) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every text in order with its vector, float32 (dim,), unit length."""
    for start in range(0, len(texts), TEXT_BATCH):
        part = texts[start : start + TEXT_BATCH]
        yield from zip(part, encoder.encode_texts(part), strict=True)


def clean_text(text: str, where: str) -> str:
    """A text as the towers take it: bytes of an argument that were not UTF-8 become replacement characters.

    Raises:
        UsageError: it is empty.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8").strip()
    if not clean:
        raise UsageError(f"{where}: the text is empty: give some words")
    return clean


def image_record(decoded: Decoded, folder: Path | None = None) -> dict[str, Any]:
    """What `import --records` reads of a picture: its path (relative to `folder`), as `build-index` records it, and the
    hash of its content."""
    path = decoded.file.path
    if folder is not None:
        try:
            path = os.path.relpath(path, folder.absolute())
        except ValueError:  # another drive
            path = decoded.file.path
    taken = {"taken": decoded.taken} if decoded.taken else {}
    return {"path": path, "width": decoded.width, "height": decoded.height, **taken, "content": decoded.sha256}


def json_line(row: Mapping[str, Any]) -> str:
    """One object and a line end; a name that is not UTF-8 is kept by JSON's own escapes."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def numbers(vector: NDArray[np.float32], dtype: DType) -> list[float]:
    """A vector for JSON: of each number no more digits than tell it from its neighbours in `dtype`."""
    return [float(str(value)) for value in vector.astype(dtype)]


class VectorFile:
    """Writes X.npy, float32 or float16 (rows, dim), and X.jsonl, line k for row k; both appear when all is done.

    The number of rows need not be known before. An error inside the `with` leaves the old files, if there are any.
    """

    def __init__(self, path: Path, dim: int, dtype: DType) -> None:
        """Opens the files beside their places.

        Raises:
            UsageError: the name does not end in .npy, or the folder cannot be written.
        """
        if path.suffix != ".npy":
            raise UsageError(f"--out {path}: give a name that ends in .npy; the records go beside it, in .jsonl")
        self.path, self.records = path, path.with_suffix(".jsonl")
        self.rows, self._dim, self._dtype = 0, dim, np.dtype(dtype).newbyteorder("<")
        self._temporary = [p.with_name(f".{p.name}.{os.getpid()}.tmp") for p in (self.records, self.path)]
        try:
            self._lines: TextIO = self._temporary[0].open("w", encoding="utf-8")
            self._array: BinaryIO = self._temporary[1].open("wb")
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UsageError(f"--out {path}: {error.strerror}: name a file in a folder you can write to") from None
        self._head()
        self._start = self._array.tell()

    def _head(self) -> None:
        """NumPy leaves room in it for the digits of any number of rows, so that it can be written again in place."""
        head = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows, self._dim)}
        np.lib.format.write_array_header_1_0(self._array, head)

    def add(self, record: Mapping[str, Any], vector: NDArray[np.float32]) -> None:
        """One row and its line."""
        self._array.write(vector.astype(self._dtype).tobytes())
        self._lines.write(json_line(record))
        self.rows += 1

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._array, self._lines:
                if kind is None:
                    self._array.seek(0)
                    self._head()
                    assert self._array.tell() == self._start
            if kind is None:
                for temporary, final in zip(self._temporary, (self.records, self.path), strict=True):
                    os.replace(temporary, final)
        finally:
            for temporary in self._temporary:
                temporary.unlink(missing_ok=True)
