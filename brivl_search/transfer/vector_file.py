"""Files of vectors with their records, as `import --vectors` takes them: X.npy and X.jsonl, a line for each row."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.decode_pool import Decoded
from brivl_search.embedding.batches import DType
from brivl_search.errors import UsageError, not_written


def image_record(decoded: Decoded, folder: Path | None = None) -> dict[str, Any]:
    """What `import --records` reads of a picture: its path (relative to `folder`), as `build-index` records it, and the
    hash of its content."""
    path = decoded.file.path
    if folder is not None:
        try:
            path = os.path.relpath(path, folder.absolute())
        except ValueError:  # another drive
            path = decoded.file.path
    taken = ({"taken": decoded.taken} if decoded.taken else {}) | ({"phash": decoded.look} if decoded.look else {})
    return {"path": path, "width": decoded.width, "height": decoded.height, **taken, "content": decoded.sha256}


def json_line(row: Mapping[str, Any]) -> str:
    """One object and a line end; a name that is not UTF-8 is kept by JSON's own escapes."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


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
            raise UsageError(f"`out` {path}: give a name that ends in .npy; the records go beside it, in .jsonl")
        self.path, self.records = path, path.with_suffix(".jsonl")
        self.rows, self._dim, self._dtype = 0, dim, np.dtype(dtype).newbyteorder("<")
        with ExitStack() as opening:
            lines, array = opening.enter_context(appearing(self.records, self.path))
            try:
                self._lines = opening.enter_context(lines.open("w", encoding="utf-8"))
                self._array = opening.enter_context(array.open("wb"))
            except OSError as error:
                raise not_written(f"`out` {path}", error) from None
            self._head()
            self._start = self._array.tell()
            self._opened = opening.pop_all()

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
        if kind is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._array.seek(0)
            self._head()
            assert self._array.tell() == self._start
