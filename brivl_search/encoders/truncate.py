"""Vectors cut to their first dimensions, for models trained so that these are vectors by themselves.

That is Matryoshka representation learning (Kusupati et al., NeurIPS 2022, arXiv 2205.13147). Other models' vectors lose
what they know when they are cut, so it is refused for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import EncoderError


def check_dim(name: str, dim: int, wanted: int | None, sizes: Sequence[int]) -> int:
    """The length of a model's vectors, cut to `wanted` if that is asked for.

    Args:
        name: of the model, for the message.
        dim: its full length.
        wanted: what the user asks for; None: all.
        sizes: what the model was trained to be cut to; empty: it was not.

    Raises:
        EncoderError: it was not trained to be cut, or not that short.
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
