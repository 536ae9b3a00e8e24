"""Vectors that an import gives, in a plain file beside the staging: written one after the other, read by number.

They cost no embedding and are not kept for a later try, so they need neither a tree nor to be durable.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_BUFFER = 1 << 20


class GivenVectors:
    """A file of float16 vectors that lives as long as one writer; a killed one's is deleted by the next.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._reader: IO[bytes] | None = None
        self._rows = 0
        path.unlink(missing_ok=True)

    def append(self, vector: NDArray[np.float16]) -> int:
        """Its number. Raises OSError: a full disk."""
        if self._file is None:
            self._file = self._path.open("wb", buffering=_BUFFER)
            self._reader = self._path.open("rb", buffering=0)
        self._file.write(vector.astype("<f2").tobytes())
        self._rows += 1
        return self._rows - 1

    def vector(self, number: int, dim: int) -> NDArray[np.float16]:
        """float16 (dim,)."""
        assert self._file is not None and self._reader is not None
        self._file.flush()
        self._reader.seek(2 * dim * number)
        return np.frombuffer(self._reader.read(2 * dim), dtype="<f2")

    def clear(self) -> None:
        """Forget all of them."""
        for file in (self._file, self._reader):
            if file is not None:
                with contextlib.suppress(OSError):  # what was not written yet is not wanted either
                    file.close()
        self._file = self._reader = None
        self._rows = 0
        self._path.unlink(missing_ok=True)
