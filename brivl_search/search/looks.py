"""Whether rows look alike: perceptual hashes from the records, and from the files where an older index has none."""

from __future__ import annotations

import hashlib
import threading

from brivl_search.corpus.images import PixelSpec, decode, read_file
from brivl_search.corpus.phash import LOOK_BITS, LOOK_SIDE, distance
from brivl_search.errors import ImageError, IndexIncompatibleError
from brivl_search.index import IndexReader
from brivl_search.search.rows import RowId

_APART = (
    40  # bits of 256: JPEG at quality 40 moves at most 10, 2 % cut off each side 54; pages of text are from 66 apart
)
_ANY = 0.5  # cosine from which down looks do not count
_FROM_FILES = 64  # files that are read for one query
_KNOWN_MOST = 100_000

_known: dict[str, str] = {}  # content → hash, of files that were read
_lock = threading.Lock()


def allowed_bits(alike: float, default: float) -> float:
    """Bits in which rows may differ to be folded at a cosine.

    The lower the cosine that somebody asks for, the less alike pictures have to look: from 0.5 down they may be any.

    Args:
        alike: the cosine.
        default: the cosine at and above which the usual number of bits holds.
    """
    share = (default - alike) / (default - _ANY)
    return _APART + min(1.0, max(0.0, share)) * (LOOK_BITS - _APART)


class Looks:
    """Hashes of the images of one generation, for one query. A row whose hash is not known looks like any other."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._rows: dict[RowId, str] = {}
        self._left = _FROM_FILES

    def apart(self, one: RowId, other: RowId, bits: float) -> bool:
        """Whether two images differ in more than so many bits."""
        first, second = self._of(one), self._of(other)
        return bool(first and second) and distance(first, second) > bits

    def _of(self, row: RowId) -> str:
        if row not in self._rows:
            self._rows[row] = self._find(row)
        return self._rows[row]

    def _find(self, row: RowId) -> str:
        try:
            entry = self._reader.entry("image", *row)
        except IndexIncompatibleError:
            return ""  # whoever shows the row will say so
        record, content = entry["record"], str(entry["content"])
        if is_hash(stored := record.get("phash")):
            return str(stored)
        with _lock:
            if content in _known:
                return _known[content]
        path = record.get("path")
        if not self._left or not isinstance(path, str) or len(content) != 64:
            return ""
        self._left -= 1
        found = _of_file(path, content)
        with _lock:
            if len(_known) >= _KNOWN_MOST:
                _known.clear()
            _known[content] = found
        return found


def is_hash(value: object) -> bool:
    """Whether a record's `phash` is one: 64 hex digits."""
    return isinstance(value, str) and len(value) == LOOK_BITS // 4 and set(value) <= set("0123456789abcdef")


def _of_file(path: str, content: str) -> str:
    """The hash of a file that is what was indexed: that content has been decoded before, in a process of its own."""
    try:
        data = read_file(path)
        if hashlib.sha256(data).hexdigest() != content:
            return ""
        return decode(data, PixelSpec(LOOK_SIDE)).look
    except ImageError:
        return ""
