"""A matcher and the pictures it has read: what re-ordering and its evaluation share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.containers.place import SEPARATOR
from brivl_search.corpus.images import DecodedImage, decode, read_file
from brivl_search.display import printable
from brivl_search.encoders.base import Origin
from brivl_search.encoders.matching import Matcher
from brivl_search.errors import ImageError, UsageError

TOP = 32  # hits that are re-ordered
# What the matcher read of pictures is remembered up to both: 37 regions of 384 numbers are 28 kB a picture.
_KEPT, _KEPT_BYTES = 1024, 64_000_000


@dataclass(frozen=True)
class _Read:
    """A picture that the matcher can read, and the state of its file."""

    state: tuple[int, int] | None
    picture: Any


@dataclass(frozen=True)
class Placed:
    """A candidate in its new place.

    Attributes:
        candidate: its place before.
        score: what it is ordered by; None: its picture could not be read.
    """

    candidate: int
    score: float | None


class Reranker:
    """A matcher, and what it has read of pictures so far. Threads may share it.

    Attributes:
        unread: path → why it could not be read, of the pictures that kept their places. Each stands here once.
    """

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.unread: dict[str, str] = {}
        self._known: OrderedDict[str, _Read] = OrderedDict()
        self._lock = threading.Lock()

    def order(self, texts: Sequence[str], pictures: Sequence[Any | None], cosines: Sequence[float]) -> list[Placed]:
        """The order of candidates, each a pair of a text and a picture.

        Args:
            texts: of the pairs.
            pictures: of the pairs, as `read` gives them; a pair without one keeps its place.
            cosines: of the pairs; equal scores stay in their order.

        Returns:
            For each place the candidate that belongs there, and its score; None where there was no picture.
        """
        there = [at for at, picture in enumerate(pictures) if picture is not None]
        out = [Placed(at, None) for at in range(len(pictures))]
        if not there:
            return out
        with self._lock:  # the matcher's model and tokenizer are one
            scores = self.matcher.scores([texts[at] for at in there], [pictures[at] for at in there])
        mixed: NDArray[np.float32] = scores + self.matcher.cosine_weight * np.array(
            [cosines[at] for at in there], np.float32
        )
        for place, at in zip(there, np.argsort(-mixed, kind="stable").tolist(), strict=True):
            out[place] = Placed(there[at], float(mixed[at]))
        return out

    def read(self, paths: Sequence[str], kept: Sequence[Any | None] = ()) -> list[Any | None]:
        """What the matcher reads of each picture; None where that is impossible, and `unread` says why.

        A picture that was read before is not read again, unless its file has changed.

        Args:
            paths: of the pictures.
            kept: what an index keeps of each for this matcher, whose file is then not looked at; None: nothing.
        """
        if kept:
            rest = iter(self.read([path for path, one in zip(paths, kept, strict=True) if one is None]))
            return [next(rest) if one is None else one for one in kept]
        states = [_state(path) for path in paths]
        found: dict[str, Any] = {}
        new: dict[str, DecodedImage] = {}
        for path, state in zip(paths, states, strict=True):
            with self._lock:
                known = self._known.get(path)
                if known is not None and state is not None and known.state == state:
                    self._known.move_to_end(path)
                    found[path] = known.picture
                    continue
            if path not in new:
                try:
                    new[path] = decode(read_file(path), self.matcher.pixels)
                except ImageError as error:
                    self.unread.setdefault(path, str(error))
        if new:
            origins = [Origin(path, one.width, one.height) for path, one in new.items()]
            with self._lock:
                made = self.matcher.pictures(np.stack([one.pixels for one in new.values()]), origins)
                found |= zip(new, made, strict=True)
                for path, state in zip(paths, states, strict=True):
                    if path in new and state is not None:
                        self._known[path] = _Read(state, found[path])
                self._drop_oldest()
        return [found.get(path) for path in paths]

    def _drop_oldest(self) -> None:
        sizes = sum(_bytes(one.picture) for one in self._known.values())
        while len(self._known) > _KEPT or sizes > _KEPT_BYTES:
            sizes -= _bytes(self._known.popitem(last=False)[1].picture)

    def forget(self) -> None:
        """Forgets what was read of pictures."""
        with self._lock:
            self._known.clear()

    def shown(self, pixels: NDArray[np.uint8], origin: Origin) -> Any:
        """What the matcher reads of a picture that is decoded: pixels uint8 (S, S, 3)."""
        with self._lock:
            (picture,) = self.matcher.pictures(pixels[None], [origin])
        return picture

    def asked(self, source: str | bytes) -> Any:
        """What the matcher reads of a query's own picture, a path or a file's content.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            one = decode(read_file(source) if isinstance(source, str) else source, self.matcher.pixels)
        except ImageError as error:
            name = printable(source) if isinstance(source, str) else "of these bytes"
            raise UsageError(f"`image` {name}: {error}", code=error.code, details=error.details) from None
        path, content = (str(Path(source).absolute()), None) if isinstance(source, str) else ("", source)
        return self.shown(one.pixels, Origin(path, one.width, one.height, content))


def _bytes(picture: Any) -> int:
    return int(getattr(picture, "nbytes", 0))


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of a file, or of the container that a member lies in; None: it is gone."""
    try:
        found = Path(path.partition(SEPARATOR)[0]).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
