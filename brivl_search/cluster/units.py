"""Units of work: what a host decodes and embeds at a time, and the one file that says what came of it.

A unit is a list of pictures: some files that follow each other, or members of one container, such as a tar. It lies in
a folder that every host sees, under the name of its own hash:

    NAME.todo   JSON: the pictures, what the index knows of each, and the limit of megapixels
    NAME.npz    what came of it; it appears whole (written under another name, synced, renamed)
        rows        uint8: JSON: the limit, and a row a picture
        vectors     little-endian float16 (n, dim): of contents that were embedded, each once

What counts is rows, not units: a later run takes every row whose picture has still the same size and time, from
whatever unit, and cuts only the rest into units. So pictures that come or go move no work.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.decode_pool import Decoded
from brivl_search.corpus.found import ImageFile
from brivl_search.embedding.batches import Embedded

MOST_FILES = 2_000
MOST_MEMBERS = 10_000  # of one container: a tar of webdataset is a unit as it is
_ROW = ("sha256", "width", "height", "known", "reason", "detail", "taken", "look")


@dataclass(frozen=True)
class Unit:
    """Pictures that one worker decodes and embeds.

    Attributes:
        files: in the order of the work list.
        known: for each file, hashes of contents that need no vector.
        limit: the most megapixels that are decoded.
    """

    files: tuple[ImageFile, ...]
    known: tuple[tuple[str, ...], ...]
    limit: float

    def to_bytes(self) -> bytes:
        files = [[file.path, file.size, file.mtime_ns, _place(file.place)] for file in self.files]
        body = {"files": files, "known": self.known, "limit": self.limit}
        return json.dumps(body, separators=(",", ":")).encode()  # ASCII: bytes of names that are no text survive

    @classmethod
    def from_bytes(cls, data: bytes) -> Unit:
        body = json.loads(data)
        files = [ImageFile(path, size, time, _to_place(place)) for path, size, time, place in body["files"]]
        return cls(tuple(files), tuple(map(tuple, body["known"])), body["limit"])

    @property
    def name(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]

    def halves(self) -> list[Unit]:
        """Two units with half of the pictures each; the unit itself if it has but one."""
        if len(self.files) < 2:
            return [self]
        at = len(self.files) // 2
        parts = [slice(0, at), slice(at, None)]
        return [Unit(self.files[part], self.known[part], self.limit) for part in parts]


@dataclass(frozen=True)
class Result:
    """What came of a unit.

    Attributes:
        limit: the most megapixels that were decoded.
        rows: a picture each, in the unit's order, without pixels; float32 vectors with float16's values. Every row that
            was not skipped and whose content was not known has the vector of its content.
    """

    limit: float
    rows: list[Embedded]


def _place(place: Place | None) -> list[Any] | None:
    if place is None:
        return None
    return [place.container, place.kind, place.offset, place.size, place.key.hex(), place.mtime_ns]


def _to_place(values: list[Any] | None) -> Place | None:
    if values is None:
        return None
    container, kind, offset, size, key, mtime_ns = values
    return Place(container, kind, offset, size, bytes.fromhex(key), mtime_ns)


def cut(
    files: Sequence[ImageFile],
    limit: Callable[[str], float],
    known: Callable[[ImageFile], Sequence[str]],
    *,
    most: Callable[[int], int] = lambda left: MOST_FILES,
    members: int = MOST_MEMBERS,
) -> Iterator[Unit]:
    """Cuts a work list into units, in its order: a unit has one limit, and loose files or members of one container.

    Args:
        files: the work list.
        limit: of a path, the most megapixels that are decoded.
        known: of a file, hashes of contents that need no vector.
        most: files of a unit at most, where so many are left.
        members: of a container in a unit, at most.
    """
    waiting: list[ImageFile] = []
    kind: tuple[str | None, float] = (None, 0.0)

    def unit() -> Unit:
        return Unit(tuple(waiting), tuple(tuple(known(file)) for file in waiting), kind[1])

    room = most(len(files))
    for at, file in enumerate(files):
        its = (file.place.container if file.place else None, limit(file.path))
        if waiting and (its != kind or len(waiting) >= (room if its[0] is None else members)):
            yield unit()
            waiting = []
            room = most(len(files) - at)
        kind = its
        waiting.append(file)
    if waiting:
        yield unit()


class UnitFolder:
    """The folder of units, on storage that every host sees.

    Args:
        folder: created by the driver.
        dim: of the vectors.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim

    def put(self, unit: Unit) -> str:
        """Writes what is to be done; returns its name."""
        name = unit.name
        path = self.folder / f"{name}.todo"
        if not path.exists():
            _write(path, unit.to_bytes())
        return name

    def get(self, name: str) -> Unit:
        """Raises OSError: it is not there."""
        return Unit.from_bytes((self.folder / f"{name}.todo").read_bytes())

    def is_done(self, name: str) -> bool:
        return (self.folder / f"{name}.npz").exists()

    def clean(self) -> None:
        """Removes what a killed run left besides results. Only the holder of the writer's lock calls it."""
        for pattern in ("*.todo", ".*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def done(self) -> list[str]:
        """Names of the units that were finished, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.npz") if not path.name.startswith("."))

    def write(self, name: str, limit: float, rows: Sequence[Embedded]) -> None:
        """Writes what came of a unit; its name appears when all of it is on the disk.

        Args:
            name: of the unit.
            limit: the most megapixels that were decoded.
            rows: a picture each; a vector comes with the first of each content that was embedded.

        Raises:
            OSError: the disk is full, and the like; nothing appears.
        """
        numbers: dict[str, int] = {}
        vectors: list[NDArray[np.float32]] = []
        told = []
        for row in rows:
            one = row.decoded
            if row.vector is not None and one.sha256 not in numbers:
                numbers[one.sha256] = len(vectors)
                vectors.append(row.vector)
            its = [getattr(one, part) for part in _ROW]
            file = [one.file.path, one.file.size, one.file.mtime_ns, _place(one.file.place)]
            told.append([file, its, -1 if one.known else numbers.get(one.sha256, -1)])
        block = np.stack(vectors) if vectors else np.zeros((0, self.dim), np.float32)
        buffer = io.BytesIO()
        body = json.dumps({"limit": limit, "rows": told}, separators=(",", ":"))
        text = np.frombuffer(body.encode(), np.uint8)
        np.savez(buffer, rows=text, vectors=block.astype("<f2"))
        _write(self.folder / f"{name}.npz", buffer.getvalue())

    def read(self, name: str) -> Result | None:
        """What came of a unit; None if its file is not there or not whole (it is removed then)."""
        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as data:  # its parts have checksums (zip)
                body, vectors = json.loads(data["rows"].tobytes()), data["vectors"].astype(np.float32)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            return None
        found = []
        for (path_of, size, mtime_ns, place), its, at in body["rows"]:
            file = ImageFile(path_of, size, mtime_ns, _to_place(place))
            values = dict(zip(_ROW, its, strict=True))
            decoded = Decoded(file, values.pop("sha256"), None, **values)
            found.append(Embedded(decoded, None if at < 0 else vectors[at]))
        return Result(body["limit"], found)


def _write(path: Path, data: bytes) -> None:
    with appearing(path, sync=True, shared=True) as (temporary,):
        temporary.write_bytes(data)
