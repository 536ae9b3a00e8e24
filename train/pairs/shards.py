"""Shards of training pairs: some thousand images with their captions in one file, each read at its place.

    tar   webdataset's layout: members KEY.jpg (or .png, .webp, ...) and KEY.json or KEY.txt, uncompressed. Tars that
          img2dataset or webdataset wrote are read as they are
    lmdb  one file: number (4 bytes, big-endian) → length of the JSON (4 bytes, big-endian), JSON, image

`train.pairs.pack` writes both, with a `shards.json` that says how many pairs each holds. A pair is read by shard and
row, so the pairs of an epoch can be taken in any order, from anywhere on; a tar's places are kept beside it
(`NAME.tar.index.npy`), made on first use.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.containers import tar as tars
from brivl_search.errors import CorpusError

Kind = Literal["tar", "lmdb"]
MANIFEST = "shards.json"
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif")
_LENGTH = struct.Struct(">I")
_INDEX_VERSION = 1
_JSON, _TXT = 1, 2


@dataclass(frozen=True, slots=True)
class Shard:
    """One sealed file of pairs. `index` is where a tar's places are kept; "" for lmdb."""

    path: str
    kind: Kind
    pairs: int
    index: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image file's bytes and what its JSON says (of a .txt: {"txt": its content})."""

    image: bytes
    record: dict[str, Any]


class TarWriter:
    """Writes one tar shard; it appears under its name when closed. The same pairs give the same bytes."""

    kind: Kind = "tar"
    suffix = ".tar"

    def __init__(self, path: Path) -> None:
        self.path, self.pairs = path, 0
        self._handle = path.with_name(path.name + ".tmp").open("wb")
        self._tar = tarfile.open(fileobj=self._handle, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, key: str, image: bytes, extension: str, record: dict[str, Any]) -> None:
        """One pair. `key` without a dot; `extension` one of IMAGES."""
        text = json.dumps(record, ensure_ascii=False).encode()
        for name, data in ((f"{key}.{extension}", image), (f"{key}.json", text)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self.pairs += 1

    def close(self) -> None:
        self._tar.close()
        _seal(self._handle, self.path)
        _index(self.path, index_of(self.path))


class LmdbWriter:
    """Writes one LMDB shard; it appears under its name when closed."""

    kind: Kind = "lmdb"
    suffix = ".lmdb"
    _BATCH = 64 << 20

    def __init__(self, path: Path) -> None:
        import lmdb

        self.path, self.pairs = path, 0
        self._new = path.with_name(path.name + ".tmp")
        self._new.unlink(missing_ok=True)
        # The file grows as it is filled; the map only reserves addresses.
        self._environment = lmdb.open(str(self._new), subdir=False, map_size=1 << 40, sync=False, lock=False)
        self._waiting: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def add(self, key: str, image: bytes, extension: str, record: dict[str, Any]) -> None:
        text = json.dumps({**record, "key": key}, ensure_ascii=False).encode()
        value = _LENGTH.pack(len(text)) + text + image
        self._waiting.append((_LENGTH.pack(self.pairs), value))
        self.pairs, self._bytes = self.pairs + 1, self._bytes + len(value)
        if self._bytes >= self._BATCH:
            self._flush()

    def _flush(self) -> None:
        with self._environment.begin(write=True) as txn:
            for key, value in self._waiting:
                txn.put(key, value, append=True)
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._environment.sync(True)
        self._environment.close()
        os.replace(self._new, self.path)


WRITERS: dict[str, type[TarWriter | LmdbWriter]] = {"tar": TarWriter, "lmdb": LmdbWriter}


def _seal(handle: Any, path: Path) -> None:
    handle.flush()
    os.fsync(handle.fileno())
    handle.close()
    os.replace(handle.name, path)


def index_of(path: Path, folder: Path | None = None) -> Path:
    """Where the places of a tar are kept: beside it, or in `folder` where that cannot be written."""
    beside = path.with_name(path.name + ".index.npy")
    if folder is None or beside.is_file() or os.access(path.parent, os.W_OK):
        return beside
    return folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}.index.npy"


def _index(path: Path, index: Path) -> np.ndarray:
    """Places of a tar's pairs, int64 (n, 5): image offset and size, text offset and size, kind of text (1 JSON, 2 txt).

    An image without text, or a text without an image, is no pair. The file's first row holds the tar's size, so that an
    index of another tar, or one older than its tar, is not believed.
    """
    status = path.stat()
    size = status.st_size
    if index.is_file() and index.stat().st_mtime_ns >= status.st_mtime_ns:
        table: np.ndarray = np.load(index)
        if tuple(table[0, :3]) == (size, len(table) - 1, _INDEX_VERSION):
            return table[1:]
    found: dict[str, list[int]] = {}
    for member in tars.members(str(path)):
        if isinstance(member, tars.Damage):
            raise CorpusError(f"{path} is damaged at byte {member.offset} ({member.detail}): copy or pack it again")
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        row = found.setdefault(f"{folder}/{stem}", [0, 0, 0, 0, 0])
        ending = ending.lower()
        if ending in IMAGES and not row[1]:
            row[0:2] = member.offset, member.size
        elif ending == "json" or (ending == "txt" and row[4] != _JSON):
            row[2:5] = member.offset, member.size, _JSON if ending == "json" else _TXT
    rows = [row for row in found.values() if row[1] and row[4]]
    table = np.array([[size, len(rows), _INDEX_VERSION, 0, 0], *rows], dtype=np.int64)
    index.parent.mkdir(parents=True, exist_ok=True)
    with appearing(index) as (new,), new.open("wb") as handle:
        np.save(handle, table)
    return table[1:]


def list_shards(folder: Path, index_folder: Path | None = None) -> list[Shard]:
    """The shards of a folder, by `shards.json`, else every *.tar and *.lmdb in order of name.

    Args:
        folder: holds the shards.
        index_folder: for the indexes of tars in a folder that cannot be written.

    Raises:
        CorpusError: no shards there, packing did not end, or a shard is missing or damaged.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if not content["complete"]:
            raise CorpusError(f"{folder}: packing did not end: run the same train.pairs.pack command again")
        names = [(entry["name"], entry["pairs"]) for entry in content["shards"]]
    else:
        names = [(path.name, -1) for path in sorted(folder.glob("*")) if path.suffix in (".tar", ".lmdb")]
    if not names:
        raise CorpusError(f"{folder} holds no shards (*.tar, *.lmdb): make them with python -m train.pairs.pack")
    shards = []
    for name, pairs in names:
        path = folder / name
        if not path.is_file():
            raise CorpusError(f"{path} is missing, and {MANIFEST} names it: copy it again, or pack anew")
        if path.suffix == ".lmdb":
            shards.append(Shard(str(path), "lmdb", pairs if pairs >= 0 else _lmdb_pairs(path)))
        else:
            index = index_of(path, index_folder)
            if pairs < 0 or not index.is_file():
                pairs = len(_index(path, index))
            shards.append(Shard(str(path), "tar", pairs, str(index)))
    return [shard for shard in shards if shard.pairs]


def _lmdb_pairs(path: Path) -> int:
    reader = _LmdbShard(str(path))
    try:
        return reader.pairs
    finally:
        reader.close()


def identity(shards: Sequence[Shard]) -> str:
    """Names and sizes of the shards as a short hash: the same pairs at the same places."""
    names = [[os.path.basename(shard.path), shard.pairs] for shard in shards]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


class _TarShard:
    def __init__(self, path: str, index: str) -> None:
        self.path, self.places = path, _index(Path(path), Path(index))
        self.pairs = len(self.places)
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, row: int) -> Pair:
        image, size, text, length, kind = (int(value) for value in self.places[row])
        content = self._bytes(text, length)
        record = json.loads(content) if kind == _JSON else {"txt": content.decode("utf-8", "replace")}
        return Pair(self._bytes(image, size), record)

    def _bytes(self, offset: int, size: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        while len(data) < size:
            more = os.pread(self.descriptor, size - len(data), offset + len(data))
            if not more:
                raise CorpusError(f"{self.path} ends at byte {offset + len(data)}: copy or pack it again")
            data += more
        return data

    def close(self) -> None:
        os.close(self.descriptor)


_environments: dict[tuple[int, str], list[Any]] = {}  # (process, path) → environment, readers


class _LmdbShard:
    def __init__(self, path: str) -> None:
        import lmdb

        self.path, self._key = path, (os.getpid(), os.path.realpath(path))
        # LMDB opens a file once in a process.
        for key in [key for key in _environments if key[0] != os.getpid()]:  # of the parent, before a fork
            _environments.pop(key)[0].close()  # here only: without locks there is nothing to share
        if self._key not in _environments:
            try:
                opened = lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False, create=False)
            except lmdb.Error as error:
                raise CorpusError(f"{path} is no LMDB that can be read ({error}): copy or pack it again") from None
            _environments[self._key] = [opened, 0]
        _environments[self._key][1] += 1
        self.environment = _environments[self._key][0]
        self.pairs = int(self.environment.stat()["entries"])

    def read(self, row: int) -> Pair:
        with self.environment.begin(buffers=True) as txn:
            value = txn.get(_LENGTH.pack(row))
            if value is None:
                raise CorpusError(f"{self.path} has no pair {row}: copy or pack it again")
            (length,) = _LENGTH.unpack(value[:4])
            return Pair(bytes(value[4 + length :]), json.loads(bytes(value[4 : 4 + length])))

    def close(self) -> None:
        _environments[self._key][1] -= 1
        if not _environments[self._key][1]:
            _environments.pop(self._key)[0].close()


class ShardReader:
    """Pairs by shard and row; keeps the last shards open, anew in every process that a copy of it comes to."""

    def __init__(self, keep_open: int = 64) -> None:
        self.keep_open = keep_open
        self._open: OrderedDict[str, _TarShard | _LmdbShard] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"keep_open": self.keep_open, "_open": OrderedDict(), "_process": -1}

    def read(self, shard: Shard, row: int) -> Pair:
        """The pair in row `row` of a shard.

        Raises:
            CorpusError: the shard is damaged.
            OSError: it cannot be read.
        """
        if self._process != os.getpid():  # after a fork an LMDB of the parent must not be used
            self._open, self._process = OrderedDict(), os.getpid()
        if shard.path in self._open:
            self._open.move_to_end(shard.path)
        else:
            new = _TarShard(shard.path, shard.index) if shard.kind == "tar" else _LmdbShard(shard.path)
            if new.pairs != shard.pairs:
                new.close()
                raise CorpusError(f"{shard.path} holds {new.pairs} pairs, not {shard.pairs}: copy or pack it again")
            self._open[shard.path] = new
            if len(self._open) > self.keep_open:
                self._open.popitem(last=False)[1].close()
        return self._open[shard.path].read(row)
