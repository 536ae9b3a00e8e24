"""Boxes of pictures: from a file of them, and packed for a batch. A detector's: `brivl_search.encoders.brivl.detector`.

The file is BriVL's: JSON lines with the picture's path in `image_id` (or `image`) and in `bbox` its boxes
[[x1, y1, x2, y2], ...] in pixels of the original, best first. A relative path counts from the file's folder; for a
picture of another path the only line with its file name is taken, because such files travel without their folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin
from brivl_search.errors import CorpusError, UsageError

Boxes = NDArray[np.float32]
_WHOLE = np.array([[0, 0, 1, 1]], dtype=np.float32)


class BoxSource(Protocol):
    """Where boxes come from.

    Attributes:
        fingerprint: of all that decides a box; part of the encoder's fingerprint.
    """

    fingerprint: str

    def find(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> list[Boxes | None]:
        """Boxes of n pictures.

        Args:
            pixels: uint8 RGB (n, S, S, 3).
            origins: which pictures they are, where that is known.

        Returns:
            For each float32 (boxes, 4): x1, y1, x2, y2 as shares of width and height, best first, without the whole
            picture; None: nothing is known of this one.
        """
        ...


class BoxFile:
    """Boxes from a file of JSON lines; it is read when the first picture is embedded, a text query needs its hash."""

    def __init__(self, path: Path) -> None:
        """Hashes the file.

        Raises:
            UsageError: it cannot be read.
        """
        self.path = path
        self.without = 0  # pictures asked for that the file knows nothing of
        try:
            with path.open("rb") as file:
                self.fingerprint = "boxes-" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"boxes {path}: {error.strerror}: give a file of JSON lines with bbox") from None

    def find(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> list[Boxes | None]:
        """See `BoxSource`.

        Raises:
            CorpusError: a line of the file is not what it should be.
        """
        if origins is None:
            return [None] * len(pixels)
        found = [self._of(origin) for origin in origins]
        self.without += sum(boxes is None for boxes in found)
        return found

    @cached_property
    def _lines(self) -> dict[str, tuple[int, int] | None]:
        """Absolute path, and bare name, of a picture → number and place of its line; None: several have the name."""
        lines: dict[str, tuple[int, int] | None] = {}
        folder, place = os.path.abspath(self.path.parent), 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = self._record(line, number)
                    image = record.get("image_id", record.get("image"))
                    if not isinstance(image, str):
                        raise CorpusError(f"{self.path}, line {number}: no image_id (or image) with the picture's path")
                    if "bbox" in record:
                        lines[os.path.normpath(os.path.join(folder, image))] = (number, place)
                        name = os.path.basename(image)
                        lines[name] = None if name in lines else (number, place)
                place += len(line)
        return lines

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{self.path}, line {number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise CorpusError(f"{self.path}, line {number}: not a JSON object")
        return record

    def _of(self, origin: Origin) -> Boxes | None:
        inside = origin.path.rpartition("::")[2]  # of a container's member
        line = self._lines.get(origin.path) or self._lines.get(os.path.basename(inside))
        if line is None:
            return None
        number, place = line
        with self.path.open("rb") as file:
            file.seek(place)
            record = self._record(file.readline(), number)
        try:
            boxes = np.asarray(record["bbox"], dtype=np.float32).reshape(-1, 4)
        except (ValueError, TypeError, KeyError):
            boxes = np.full((1, 4), np.nan, dtype=np.float32)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise CorpusError(f"{self.path}, line {number}: bbox must be a list of [x1, y1, x2, y2], x1 ≤ x2, y1 ≤ y2")
        size = np.array([origin.width, origin.height] * 2, dtype=np.float32)
        shares: Boxes = (boxes / size).clip(0, 1)
        return shares


def grid_shares(grids: Sequence[int]) -> Boxes:
    """The cells of every n × n grid as shares of the picture, x outer and y inner: float32 (Σn², 4)."""
    cells = [(i / n, j / n, (i + 1) / n, (j + 1) / n) for n in grids for i in range(n) for j in range(n)]
    return np.array(cells, dtype=np.float32).reshape(-1, 4)


def box_batch(found: Sequence[Boxes | None], grids: Sequence[int], max_boxes: int) -> tuple[Boxes, NDArray[np.bool_]]:
    """What `ImageTower` takes: the first `max_boxes` boxes of each picture, then the whole of it; the grid for None.

    Returns:
        float32 (n, R, 4) with R that of the picture with most, zeros behind shorter lists; bool (n, R), false there.
    """
    rows = [grid_shares(grids) if boxes is None else np.concatenate([boxes[:max_boxes], _WHOLE]) for boxes in found]
    longest = max(map(len, rows), default=0)
    packed = np.zeros((len(rows), longest, 4), dtype=np.float32)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        packed[i, : len(row)], mask[i, : len(row)] = row, True
    return packed, mask
