"""Staging: rows that are embedded but not yet sealed, so that a killed build continues where it was.

    meta                      JSON: encoder fingerprint, the published state and the job the changes are meant for, and
                              the jobs whose vectors are kept
    change/{i|t}={key}        JSON of an Item, or null: the item is gone
    change/{i|t}~{sha256}     the same for long keys
    vector/{i|t}{content}     little-endian float16 (dim,)
    region/{matcher}{content} what a matcher reads of a picture (`regions.pack`); matcher: 16 digits of its hash
    given/{i|t}{content}      number (uint64) of a vector in staging.given: it goes before any other of this content

A job is what is being done (a build of these folders, a removal, ...). The same job goes on with its changes; another
one drops them, so that nothing half-done is published under its name, but keeps the vectors, which cost the time. Given
vectors cost none, and nobody has checked them: they are dropped with the changes.
Only the process holding the writer's lock opens it for writing, hence no reader table.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import struct
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from brivl_search.index import keys
from brivl_search.index.given import GivenVectors
from brivl_search.index.store import Environment
from brivl_search.index.types import MODALITIES, Item, Modality

Published = Callable[[Modality, str], bool]  # does a live row hold this content?

_META = b"meta"
_IMPORT = "import\0"  # what a job began with in 0.2 and older that left given vectors among the embedded ones
_BUFFER_BYTES = 16 << 20
_MATCHER = 16  # digits that tell matchers apart
_NUMBER = struct.Struct("<QI")  # of a given vector, and its dimensions


def staging_path(directory: Path) -> Path:
    return directory / "staging.lmdb"


def change_prefix(modality: Modality) -> bytes:
    return b"change/" + modality[0].encode()


def vector_key(modality: Modality, content: str) -> bytes:
    return b"vector/" + modality[0].encode() + content.encode()


def region_key(fingerprint: str, content: str) -> bytes:
    """Of a picture, and of the matcher with a fingerprint."""
    return b"region/" + hashlib.sha256(fingerprint.encode()).hexdigest()[:_MATCHER].encode() + content.encode()


def given_key(modality: Modality, content: str) -> bytes:
    return b"given/" + modality[0].encode() + content.encode()


def _encode(key: str, item: Item | None) -> bytes:
    body = {"key": key, "item": None}
    if item is not None:
        values = [item.content, item.size, item.mtime_ns, dict(item.record), item.origin]
        body["item"] = values  # type: ignore[assignment]
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _decode(value: bytes) -> tuple[str, Item | None]:
    body = json.loads(value)
    if body["item"] is None:
        return body["key"], None
    content, size, mtime_ns, record, *origin = body["item"]  # staged by 0.2 or older: without an origin
    return body["key"], Item(body["key"], content, size, mtime_ns, record, *origin)


class Staging:
    """The staged changes and vectors; writes are buffered until `flush`, reads see them at once.

    Args:
        directory: the index.
        fingerprint: of the encoder; vectors of another one are dropped.
        state: the published one, see `Meta.state`; "" before the first commit.
        job: what is being done; "" is never continued (a removal is planned anew each time).
        published: tells which vectors are needed no longer.
    """

    def __init__(self, directory: Path, fingerprint: str, state: str, job: str, published: Published) -> None:
        self._path = staging_path(directory)
        self._fingerprint, self._state, self._job, self._published = fingerprint, state, job, published
        self._owners = [job] if job else []
        self._buffer: dict[bytes, bytes] = {}
        self._bytes = 0
        self._environment: Environment | None = None
        self._given = GivenVectors(self._path.with_name("staging.given"))
        self.pending: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)
        if self._path.exists():
            try:
                self._environment = Environment(self._path, writable=True)
            except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError):
                self.clear()  # torn by a crash of the machine: only time is lost
                return
            stamp = json.loads(self._environment.get(_META) or b"{}")
            owners = stamp.get("owners", [])
            if stamp.get("fingerprint") != fingerprint or any(owner.startswith(_IMPORT) for owner in owners):
                self.clear()
                return
            self._owners = sorted({*self._owners, *owners})
            if job and (stamp.get("state"), stamp.get("job")) == (state, job):
                self._forget_given()
                for modality in MODALITIES:
                    self.pending[modality] = sum(item is not None for _, item in self.changes(modality))
            else:  # another job's, or already published when it was killed
                self._keep_vectors()

    def _stamp(self) -> bytes:
        stamp = {
            "fingerprint": self._fingerprint, "state": self._state, "job": self._job, "owners": self._owners
        }  # fmt: skip
        return json.dumps(stamp, sort_keys=True).encode("utf-8", "surrogatepass")

    def _forget_given(self) -> None:
        assert self._environment is not None
        if dead := [key for key, _ in self._environment.scan(b"given/")]:
            self._environment.write(lambda txn: [txn.delete(key) for key in dead])

    def _keep_vectors(self, *, given_regions: str | None = None) -> None:
        """Drop changes, given vectors, and those that live rows hold by now; the file goes if none is left.

        Regions of pictures in live rows stay until a commit gives them to these rows.

        Args:
            given_regions: fingerprint of the matcher for which a commit just did so.
        """
        assert self._environment is not None
        dead = [key for prefix in (b"change/", b"given/") for key, _ in self._environment.scan(prefix)]
        left = False
        for modality in MODALITIES:
            prefix = vector_key(modality, "")
            for content in list(self._contents(prefix)):
                if self._published(modality, content):
                    dead.append(prefix + content.encode())
                else:
                    left = True
        given = None if given_regions is None else region_key(given_regions, "")
        for key, _ in self._environment.scan(b"region/"):
            if given is not None and key.startswith(given) and self._published("image", key[len(given) :].decode()):
                dead.append(key)
            else:
                left = True
        if not left:
            self.clear()
            return

        def write(txn: Any) -> None:
            for key in dead:
                txn.delete(key)
            txn.put(_META, self._stamp())

        self._environment.write(write)
        self._given.clear()
        self.pending = dict.fromkeys(MODALITIES, 0)

    def committed(self, state: str, regions: str | None = None) -> None:
        """The changes are published: forget them, and all vectors but those that other jobs left and still need.

        Args:
            state: the published one.
            regions: fingerprint of the matcher whose staged regions went into rows.
        """
        self._state = state
        self._owners = [owner for owner in self._owners if owner != self._job]
        if self._owners and self._environment is not None:
            self._keep_vectors(given_regions=regions)
        else:
            self.clear()
        self._owners = sorted({*([self._job] if self._job else []), *self._owners})

    def _get(self, key: bytes) -> bytes | None:
        if (value := self._buffer.get(key)) is not None:
            return value
        return None if self._environment is None else self._environment.get(key)

    def _put(self, key: bytes, value: bytes) -> None:
        self._buffer[key] = value
        self._bytes += len(key) + len(value)
        if self._bytes >= _BUFFER_BYTES:
            self.let_go()

    def change(self, modality: Modality, key: str) -> tuple[bool, Item | None]:
        """(is there a staged change, the item put or None if it was removed)."""
        if self._environment is None and not self._buffer:
            return False, None
        value = self._get(keys.to_lmdb(change_prefix(modality), key))
        return (False, None) if value is None else (True, _decode(value)[1])

    def put(self, modality: Modality, key: str, item: Item | None) -> None:
        """Stage an item, or its removal (None)."""
        _, before = self.change(modality, key)
        self.pending[modality] += (item is not None) - (before is not None)
        self._put(keys.to_lmdb(change_prefix(modality), key), _encode(key, item))

    def take_back(self, modality: Modality, unwanted: Callable[[str], bool]) -> None:
        """Forget what is staged for keys that are not wanted; flushes first."""
        dead = []
        for key, item in self.changes(modality):
            if unwanted(key):
                dead.append(keys.to_lmdb(change_prefix(modality), key))
                self.pending[modality] -= item is not None
        if dead and self._environment is not None:
            self._environment.write(lambda txn: [txn.delete(key) for key in dead])

    def has_vector(self, modality: Modality, content: str) -> bool:
        return any(self._get(key(modality, content)) is not None for key in (given_key, vector_key))

    def vector(self, modality: Modality, content: str) -> NDArray[np.float16] | None:
        """float16 (dim,)."""
        if (value := self._get(given_key(modality, content))) is not None:
            return self._given.vector(*_NUMBER.unpack(value))
        value = self._get(vector_key(modality, content))
        return None if value is None else np.frombuffer(value, dtype="<f2")

    def given_number(self, modality: Modality, content: str) -> int | None:
        """How many vectors had been given before this content's; None if it has none."""
        value = self._get(given_key(modality, content))
        return None if value is None else int(_NUMBER.unpack(value)[0])

    def put_vector(self, modality: Modality, content: str, vector: NDArray[np.float16], *, given: bool = False) -> None:
        if given:
            self._put(given_key(modality, content), _NUMBER.pack(self._given.append(vector), len(vector)))
        else:
            self._put(vector_key(modality, content), vector.astype("<f2").tobytes())

    def put_regions(self, content: str, fingerprint: str, packed: bytes) -> None:
        """Stage what the matcher of this fingerprint reads of a picture."""
        self._put(region_key(fingerprint, content), packed)

    def regions(self, content: str, fingerprint: str) -> bytes | None:
        """As they were staged."""
        return self._get(region_key(fingerprint, content))

    def with_regions(self, fingerprint: str) -> Iterator[str]:
        """Contents whose regions are staged for a matcher, sorted; flushes first."""
        return self._contents(region_key(fingerprint, ""))

    def changes(self, modality: Modality) -> Iterator[tuple[str, Item | None]]:
        """All staged (key, item) of a modality in the order of their LMDB keys; flushes first."""
        self.flush()
        if self._environment is not None:
            for _, value in self._environment.scan(change_prefix(modality)):
                yield _decode(value)

    def contents(self, modality: Modality) -> Iterator[str]:
        """Contents that have a staged vector, sorted; flushes first."""
        found = heapq.merge(self.given(modality), self._contents(vector_key(modality, "")))
        return (content for content, _ in groupby(found))

    def given(self, modality: Modality) -> Iterator[str]:
        """Contents that have a given vector, sorted; flushes first."""
        return self._contents(given_key(modality, ""))

    def _contents(self, prefix: bytes) -> Iterator[str]:
        self.flush()
        if self._environment is not None:
            for key, _ in self._environment.scan(prefix):
                yield key[len(prefix) :].decode()

    def flush(self) -> None:
        """Make everything staged so far durable in one transaction."""
        if not self._buffer:
            return
        if self._environment is None:
            self._environment = Environment(self._path, writable=True)

        def write(txn: Any) -> None:
            txn.put(_META, self._stamp())
            for key, value in sorted(self._buffer.items()):
                txn.put(key, value)

        self._environment.write(write)
        self._buffer.clear()
        self._bytes = 0

    def close(self) -> None:
        """Flush, so that the same job goes on from here; a job without a name leaves nothing of its own."""
        if self._job:
            self.flush()
        else:
            self._buffer.clear()
            with contextlib.suppress(lmdb.Error):  # a full disk, say: the next writer does it
                if self._environment is not None:
                    self._keep_vectors()
        self._shut()

    def let_go(self) -> None:
        """Flush, and give back the memory that reading and writing so far took."""
        self.flush()
        if self._environment is not None:
            self._environment.renew()

    def _shut(self) -> None:
        self._given.clear()
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def clear(self) -> None:
        """Forget everything; the file goes, so its space comes back."""
        self._shut()
        self._path.unlink(missing_ok=True)
        self._buffer.clear()
        self._bytes = 0
        self._owners = [self._job] if self._job else []
        self.pending = dict.fromkeys(MODALITIES, 0)


def leftovers(directory: Path) -> dict[str, int]:
    """Number of staged changes, vectors and regions in an index nobody is writing; for `verify`."""
    counts = {"change": 0, "vector": 0, "given": 0, "region": 0}
    if staging_path(directory).exists():
        environment = Environment(staging_path(directory))
        try:
            for kind in counts:
                counts[kind] = sum(1 for _ in environment.scan(kind.encode() + b"/"))
        finally:
            environment.close()
    return counts
