"""Photos of a library that are there more than once, found from an index alone.

Photos are put in order, the best first, and grouped greedily: the first that is in no group leads one, and takes all
later ones near it. No chain of small steps joins what is unlike at its ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.phash import LOOK_BITS
from brivl_search.display import as_given
from brivl_search.index import IndexReader, Item
from brivl_search.metrics.cosine import bounded
from brivl_search.search.dedupe import ALIKE, SLACK
from brivl_search.search.looks import allowed_bits, is_hash

Kind = Literal["exact", "same", "similar"]
Advance = Callable[[int], None]

SAME_COSINE = 0.5  # a second opinion beside the hash; copies of a quarter of the size come down to it
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as the index knows it.

    Attributes:
        path: as it is stored, absolute.
        shown: as its folder was given.
        size: of the file in bytes, 0 if not known.
        mtime_ns: of the file when it was indexed.
        width, height: in pixels, 0 if not known.
    """

    path: str
    shown: str
    size: int
    mtime_ns: int
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.shown, "width": self.width, "height": self.height, "bytes": self.size}


@dataclass(frozen=True, slots=True)
class Other:
    """A photo beside the best of its group: how it is a duplicate of that one, and the cosine of the two."""

    photo: Photo
    kind: Kind
    score: float

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "score": round(self.score, 4), **self.photo.to_dict()}


@dataclass(frozen=True, slots=True)
class Group:
    """Photos of one picture: that with most pixels, of equals that with most bytes; and the others, nearest first."""

    best: Photo
    others: tuple[Other, ...]

    def to_dict(self, number: int) -> dict[str, Any]:
        """What JSON says of it, with its number in the list."""
        others = [one.to_dict() for one in self.others]
        return {"group": number, "best": self.best.to_dict(), "others": others}


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: largest first.
        photos: how many were compared.
        unhashed: of these, how many have no perceptual hash: an index made by an early version keeps none.
    """

    groups: list[Group]
    photos: int
    unhashed: int


def find(reader: IndexReader, kind: Kind = "same", alike: float = ALIKE, advance: Advance | None = None) -> Duplicates:
    """Groups of photos that are there more than once.

    Memory: dim · 2 + 32 bytes a photo, what the index says of each, and blocks of 2048 × 2048.

    Args:
        reader: of the index.
        kind: "exact": equal bytes. "same": also one picture saved again or resized: perceptual hashes within 40 bits
            of 256 and a cosine of 0.5. "similar": such groups are joined where the cosine of
            their best photos is `alike`.
        alike: a cosine, 0 to 1.
        advance: is told how many photos are done; "similar" goes over them twice.

    Raises:
        IndexIncompatibleError: a row is damaged.
    """
    photos, contents, vectors, hashes = _load(reader)
    order = sorted(range(len(photos)), key=lambda at: _worth(photos[at]))
    copies: dict[str, list[int]] = {}
    for at in order:
        copies.setdefault(contents[at], []).append(at)
    firsts = np.array([rows[0] for rows in copies.values()], np.int64)
    vectors, hashes = vectors[firsts], hashes[firsts]
    looks_same = _near_by_look(vectors, hashes)
    leads = np.arange(len(firsts)) if kind == "exact" else _leads(len(firsts), looks_same, advance)
    if kind == "similar":  # whole groups of one picture are joined, so that none is torn apart by a looser kind
        heads = np.flatnonzero(leads == np.arange(len(leads)))
        joined = _leads(len(heads), _near_by_cosine(vectors[heads], alike), advance)
        leads = heads[joined[np.searchsorted(heads, leads)]]
    members: dict[int, list[int]] = {}
    for at, lead in enumerate(leads.tolist()):
        members.setdefault(lead, []).append(at)
    sets = list(copies.values())
    groups = []
    for lead, some in members.items():
        others: list[Other] = []
        for at in some:
            score = bounded(float(vectors[lead].astype(np.float32) @ vectors[at].astype(np.float32)))
            how: Kind = "exact" if at == lead else "same" if looks_same(np.array([lead]), np.array([at])) else "similar"
            others += [Other(photos[row], how, score) for row in sets[at][at == lead :]]
        if others:
            others.sort(key=lambda one: ("exact", "same", "similar").index(one.kind))
            groups.append(Group(photos[sets[lead][0]], tuple(others)))
    groups.sort(key=lambda group: -len(group.others))
    unhashed = int((~hashes.any(axis=1)).sum())
    return Duplicates(groups, len(photos), unhashed)


def unchanged(photo: Photo) -> bool:
    """Whether the file is still the one that was indexed: a plain file with its size and time."""
    try:
        status = os.stat(photo.path)
    except (OSError, ValueError):
        return False
    return (status.st_size, status.st_mtime_ns) == (photo.size, photo.mtime_ns)


def spare(group: Group) -> list[Photo]:
    """The others that can go without a loss: unchanged files beside an unchanged best one, and not that very file.

    A member of an archive is no file of its own, and a link to the best file, or from it, is no copy.
    """
    if not unchanged(group.best):
        return []
    best = os.path.realpath(group.best.path)
    return [one.photo for one in group.others if unchanged(one.photo) and os.path.realpath(one.photo.path) != best]


def _load(reader: IndexReader) -> tuple[list[Photo], list[str], NDArray[np.float16], NDArray[np.uint8]]:
    rows = reader.count("image")
    vectors = np.zeros((rows, reader.info.encoder.dim), np.float16)
    hashes = np.zeros((rows, LOOK_BITS // 8), np.uint8)
    photos: list[Photo] = []
    contents: list[str] = []
    for items, some in reader.items("image"):
        vectors[len(photos) : len(photos) + len(items)] = some
        for item in items:
            if is_hash(look := item.record.get("phash")):
                hashes[len(photos)] = np.frombuffer(bytes.fromhex(str(look)), np.uint8)
            photos.append(_photo(item, reader.info.roots))
            contents.append(item.content)
    return photos, contents, vectors, hashes


def _photo(item: Item, roots: tuple[tuple[str, str], ...]) -> Photo:
    path = str(item.record.get("path", item.key))
    width, height = (value if isinstance(value := item.record.get(name), int) else 0 for name in ("width", "height"))
    return Photo(path, as_given(path, roots), item.size, item.mtime_ns, width, height)


def _worth(photo: Photo) -> tuple[int, int, str]:
    return -photo.width * photo.height, -photo.size, photo.path


Near = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Row numbers (m,) and (n,) → bool (m, n): which are near each other."""


def _near_by_cosine(vectors: NDArray[np.float16], bar: float) -> Near:
    def near(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (
            vectors[some].astype(np.float32) @ vectors[others].astype(np.float32).T >= bar - SLACK
        )
        return found

    return near


def _near_by_look(vectors: NDArray[np.float16], hashes: NDArray[np.uint8]) -> Near:
    bits = allowed_bits(ALIKE, ALIKE)
    cosine = _near_by_cosine(vectors, SAME_COSINE)
    known: NDArray[np.bool_] = np.asarray(hashes.any(axis=1))

    def signs(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 (n, 256) of −1 and 1, and of 0 where no hash is known: then it is near nothing."""
        set_bits = np.unpackbits(hashes[rows], axis=1).astype(np.float32)
        signed: NDArray[np.float32] = (2 * set_bits - 1) * known[rows, None].astype(np.float32)
        return signed

    def near(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        # of two vectors of signs the product is bits − 2 · distance, exactly
        found: NDArray[np.bool_] = signs(some) @ signs(others).T >= LOOK_BITS - 2 * bits
        return found & cosine(some, others) if found.any() else found

    return near


def _leads(rows: int, near: Near, advance: Advance | None) -> NDArray[np.int64]:
    """int64 (rows,): the leader of each row, greedily in their order; a leader leads itself."""
    leads = np.full(rows, -1, np.int64)
    for begin in range(0, rows, _BLOCK):
        block = np.arange(begin, min(begin + _BLOCK, rows))
        free = block[leads[block] < 0]
        inside = near(free, free)
        for at, row in enumerate(free):
            if leads[row] < 0:
                leads[row] = row
                mine = free[at:][inside[at, at:]]
                leads[mine[leads[mine] < 0]] = row
        leaders = free[leads[free] == free]
        for later in range(begin + _BLOCK, rows, _BLOCK) if len(leaders) else ():
            others = np.arange(later, min(later + _BLOCK, rows))
            others = others[leads[others] < 0]
            found = near(leaders, others)
            taken = found.any(axis=0)
            leads[others[taken]] = leaders[found[:, taken].argmax(axis=0)]
        if advance:
            advance(len(block))
    return leads
