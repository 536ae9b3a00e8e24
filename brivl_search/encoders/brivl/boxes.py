"""Boxes of pictures: read from a file, and packed into a batch. `detector` finds boxes itself.

The file has BriVL's format, JSON lines. `image_id` (or `image`) is the picture's path, relative to the file's folder or
absolute. `bbox` is a list of boxes [[x1, y1, x2, y2], ...] in pixels of the original, best first. Such files often
travel without their folders: a picture with another path gets the line with its file name, if there is only one.
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
    """A source of boxes.

    Attributes:
        fingerprint: hash of all that decides a box; part of the encoder's fingerprint.
    """

    fingerprint: str

    def find(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> list[Boxes | None]:
        """Boxes of n pictures.

        Args:
            pixels: uint8 RGB (n, S, S, 3).
            origins: where the pixels come from, if that is known.

        Returns:
            For each picture float32 (boxes, 4): x1, y1, x2, y2 as shares of width and height, best first, without the
            whole picture. None: the source does not know this picture.
        """
        ...


class BoxFile:
    """Boxes from a file of JSON lines. The lines are read with the first picture; a text query needs only the hash."""

    def __init__(self, path: Path) -> None:
        """Hashes the file.

        Raises:
            UsageError: the file cannot be read.
        """
        self.path = path
        self.without = 0  # number of pictures that the file did not know
        try:
            with path.open("rb") as file:
                self.fingerprint = "boxes-" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"boxes {path}: {error.strerror}: give a file of JSON lines with bbox") from None

    def find(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> list[Boxes | None]:
        """See `BoxSource`.

        Raises:
            CorpusError: a line of the file is malformed.
        """
        if origins is None:
            return [None] * len(pixels)
        found = [self._of(origin) for origin in origins]
        self.without += sum(boxes is None for boxes in found)
        return found

    @cached_property
    def _lines(self) -> dict[str, tuple[int, int] | None]:
        """Absolute path and bare file name of a picture → number and offset of its line; None: not unique."""
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
    """The cells of every n × n grid as shares of the picture, float32 (Σn², 4); x is the outer loop."""
    cells = [(i / n, j / n, (i + 1) / n, (j + 1) / n) for n in grids for i in range(n) for j in range(n)]
    return np.array(cells, dtype=np.float32).reshape(-1, 4)


def box_batch(found: Sequence[Boxes | None], grids: Sequence[int], max_boxes: int) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes as `ImageTower` takes them: the first `max_boxes` of each picture, then the whole picture; None: the grid.

    Returns:
        boxes float32 (n, R, 4), with R of the longest list and zeros after shorter ones; mask bool (n, R), false there.
    """
    rows = [grid_shares(grids) if boxes is None else np.concatenate([boxes[:max_boxes], _WHOLE]) for boxes in found]
    longest = max(map(len, rows), default=0)
    packed = np.zeros((len(rows), longest, 4), dtype=np.float32)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        packed[i, : len(row)], mask[i, : len(row)] = row, True
    return packed, mask
