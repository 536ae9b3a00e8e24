"""Photos that are near to many texts (hubs) step back: query-bank normalisation built into the vectors.

Bogolin et al. ("Cross Modal Retrieval with Querybank Normalisation", CVPR 2022) judge a photo x by a bank of texts:
from its cosine with a text t they subtract what it has with texts in general,

    s(t, x) = t·x − weight · (τ · log Σ_k share_k · exp(c_k·x / τ) − mean),

here with centroids c_k of many captions and their shares for the bank. As the correction depends on the photo alone, it
is one more number of its vector: a photo becomes (x, −weight · (… − mean) / constant), a text (t, constant), each
scaled to unit length, and the product of the two is s up to that scale. The direction in which vectors differ least
makes room.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import EncoderError

HUBS = "hubs.safetensors"
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Hubs:
    """The correction of a checkpoint, of `dim` dimensions.

    Attributes:
        rotation: float32 (dim, dim − 1), orthonormal columns: the directions that are kept.
        centroids: float32 (K, dim), means of captions' vectors.
        shares: float32 (K,), of the captions; their sum is 1.
        temperature, weight, mean, constant: τ and the rest of the formula above.
    """

    rotation: Array
    centroids: Array
    shares: Array
    temperature: float
    weight: float
    mean: float
    constant: float

    @classmethod
    def load(cls, folder: Path, dim: int) -> Hubs | None:
        """Of a checkpoint folder; None where it has none.

        Raises:
            EncoderError: the file is damaged, or of another checkpoint.
        """
        path = folder / HUBS
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = {name: value.astype(np.float32) for name, value in load_file(path).items()}
            settings = [float(value) for value in tensors["settings"]]
            hubs = cls(tensors["rotation"], tensors["centroids"], tensors["shares"], *settings)
            right = hubs.rotation.shape == (dim, dim - 1) and hubs.centroids.shape == (len(hubs.shares), dim)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from None
        if not right:
            raise EncoderError(f"{path} is not of a model of {dim} dimensions: copy the checkpoint folder again")
        return hubs

    def save(self, folder: Path) -> None:
        """Into a checkpoint folder, whose fingerprint it changes."""
        import os

        from safetensors.numpy import save_file

        settings = np.array([self.temperature, self.weight, self.mean, self.constant], np.float32)
        tensors = {"rotation": self.rotation, "centroids": self.centroids, "shares": self.shares, "settings": settings}
        temporary = folder / (HUBS + ".tmp")
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)
        temporary.chmod(0o644)
        os.replace(temporary, folder / HUBS)

    def closeness(self, images: Array) -> Array:
        """Unit vectors (n, dim) → (n,): τ · log Σ share · exp(centroid · x / τ), how near to texts in general."""
        exponents = images @ (self.centroids.T / self.temperature)
        highest = exponents.max(1)
        sums = (np.exp(exponents - highest[:, None]) * self.shares).sum(1)
        near: Array = (self.temperature * (np.log(sums) + highest)).astype(np.float32)
        return near

    def images(self, vectors: Array) -> Array:
        """The image tower's unit vectors (n, dim) → corrected ones, float32 (n, dim), unit length."""
        steps_back = -self.weight / self.constant * (self.closeness(vectors) - self.mean)
        return _unit(np.concatenate([vectors @ self.rotation, steps_back[:, None]], 1))

    def texts(self, vectors: Array) -> Array:
        """The text tower's unit vectors (n, dim) → float32 (n, dim), unit length."""
        return _unit(np.concatenate([vectors @ self.rotation, np.full((len(vectors), 1), self.constant)], 1))


def _unit(vectors: NDArray[np.floating]) -> Array:
    unit: Array = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
