"""A correction for hubs: photos that are near to almost every text, and so stand first where they should not.

It is that of NNN ("Nearest Neighbor Normalization Improves Multimodal Retrieval", Chowdhury et al., EMNLP 2024). A row
x is compared with reference queries r, vectors of many texts. Its score for every query is lowered by a part, α, of how
near it is to the k of them that are nearest:

    score(q, x) = q · x − α · mean of the k largest r · x

What is added depends on the row alone: one number, kept beside it. A row that is near to no reference loses little.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MOST_REFERENCES = 4096
_ROWS = 1024  # compared with all references at once
_GRID = 2.0**18  # numbers are whole multiples of its inverse, so that equal rows have equal ones wherever they stand


class DamagedCorrection(ValueError):
    """The bytes are no hub correction."""


@dataclass(frozen=True, eq=False)
class HubCorrection:
    """Reference queries, and how much they count.

    Attributes:
        references: float16 (r, dim), unit length: vectors of texts, as one encoder gives them.
        weight: α.
        nearest: k, at most r.
    """

    references: NDArray[np.float16]
    weight: float
    nearest: int

    def of(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """What is added to every score of a row: vectors (n, dim) → float32 (n,)."""
        out: NDArray[np.float32] = np.empty(len(vectors), np.float32)
        for at in range(0, len(vectors), _ROWS):
            means = nearest_means(vectors[at : at + _ROWS], self.references, (self.nearest,))[:, 0]
            out[at : at + _ROWS] = np.round(-self.weight * means * _GRID) / _GRID
        return out

    def to_bytes(self) -> bytes:
        """As a safetensors file has it; equal corrections give equal bytes."""
        from safetensors.numpy import save

        settings = np.array([self.weight, self.nearest], np.float64)
        raw: bytes = save({"references": np.ascontiguousarray(self.references, "<f2"), "settings": settings})
        return raw

    @classmethod
    def from_bytes(cls, raw: bytes) -> HubCorrection:
        """Reads what `to_bytes` gave.

        Raises:
            DamagedCorrection: they are something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(raw)
            references, (weight, nearest) = tensors["references"], tensors["settings"].tolist()
            if references.ndim != 2 or references.dtype != np.float16 or not 1 <= nearest <= len(references):
                raise ValueError("its references are not what they should be")
            if not (np.isfinite(weight) and np.isfinite(references).all()):
                raise ValueError("it holds what is no number")
            return cls(references, float(weight), int(nearest))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DamagedCorrection(str(error)) from None

    @cached_property
    def sha256(self) -> str:
        """Of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def nearest_means(
    vectors: NDArray[np.floating], references: NDArray[np.floating], counts: tuple[int, ...]
) -> NDArray[np.float64]:
    """Mean of each vector's k largest dot products with the references, for several k.

    In float64: what is rounded to float32 afterwards does not depend on the rows that a vector was computed beside.

    Args:
        vectors: (n, dim).
        references: (r, dim).
        counts: the k, each from 1 to r.

    Returns:
        float64 (n, len(counts)).
    """
    near = vectors.astype(np.float64) @ references.astype(np.float64).T
    most = max(counts)
    best = -np.sort(-np.partition(near, -most, axis=1)[:, -most:], axis=1)
    sums = np.cumsum(best, axis=1)
    return np.stack([sums[:, k - 1] / k for k in counts], axis=1)
