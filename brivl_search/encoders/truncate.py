"""Vectors cut to their first dimensions, for models trained for it.

Matryoshka representation learning (Kusupati et al., NeurIPS 2022, arXiv 2205.13147) trains a model so that the first
dimensions of a vector are a good vector themselves. Cutting is refused for other models, whose vectors lose quality.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import EncoderError


def check_dim(name: str, dim: int, wanted: int | None, sizes: Sequence[int]) -> int:
    """The length of a model's vectors: `wanted`, or `dim` if that is None.

    Args:
        name: of the model, for the message.
        dim: the full length of its vectors.
        wanted: the length the user asks for; None: the full one.
        sizes: lengths that the model was trained for; empty: it is no Matryoshka model.

    Raises:
        EncoderError: the model was not trained for vectors as short as `wanted`.
    """
    if wanted is None or wanted == dim:
        return dim
    if not sizes:
        raise EncoderError(
            f"{name} cannot be cut to {wanted} dimensions: its config does not say that it is a Matryoshka model; "
            f"leave out `truncate_dim` (its vectors have {dim})"
        )
    if not min(sizes) <= wanted < dim:
        raise EncoderError(f"{name} cannot be cut to {wanted} dimensions: give {min(sizes)} to {dim}")
    return wanted


def cut(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """float32 (n, D) → its first `dim` columns, each row scaled to unit length."""
    first = vectors[:, :dim]
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    return np.asarray(first / np.maximum(lengths, 1e-12), dtype=np.float32)
