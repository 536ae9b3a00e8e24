"""A correction for hubness: some photos are near to almost every text, and some texts to almost every photo.

It is the inverted softmax of query-bank normalisation (Bogolin et al., "Cross Modal Retrieval with Querybank
Normalisation", CVPR 2022), as a logarithm and with a weight. A photo x is compared with a bank of texts, and all its
scores are lowered by a part, w, of how near it is to texts in general:

    near(x) = τ · log Σ_k share_k · exp(c_k · x / τ) − mean

The bank is stored as centroids c_k of many captions, with the share of the captions that each stands for. A text t is
compared with a bank of photos in the same way.

Each correction depends on one vector only, so it can be stored in that vector. A photo becomes (x, −w · near(x) / a, a)
and a text (t, a, −w′ · near(t) / a), each scaled to unit length. Up to that scale, their product is

    t · x − w · near(x) − w′ · near(t)

The two new numbers take the place of the two directions in which vectors differ least.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.errors import EncoderError

HUBNESS = "hubs.safetensors"  # the file in a checkpoint folder
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bank:
    """The vectors of one modality that those of the other are compared with.

    Attributes:
        centroids: float32 (K, dim), means of groups of vectors.
        shares: float32 (K,), the share of the vectors in each group; their sum is 1.
        weight: w, of the correction.
        mean: average of the sum in `near`; it is subtracted there.
        temperature: τ.
    """

    centroids: Array
    shares: Array
    weight: float
    mean: float
    temperature: float

    def near(self, vectors: Array) -> Array:
        """Unit vectors (n, dim) → near(·) of the formula above, (n,)."""
        exponents = vectors @ self.centroids.T / self.temperature
        highest = exponents.max(1)
        sums = (np.exp(exponents - highest[:, None]) * self.shares).sum(1)
        near: Array = (self.temperature * (np.log(sums) + highest) - self.mean).astype(np.float32)
        return near


@dataclass(frozen=True, eq=False)
class Hubness:
    """The corrections of a checkpoint with vectors of `dim` dimensions.

    Attributes:
        rotation: float32 (dim, dim − 2), orthonormal columns: the directions that are kept.
        of_images: the bank of texts that photos are compared with.
        of_texts: the bank of photos that texts are compared with.
        constant: a. The larger it is, the smaller the part of a vector's length that the correction takes.
    """

    rotation: Array
    of_images: Bank
    of_texts: Bank
    constant: float

    @classmethod
    def load(cls, folder: Path, dim: int) -> Hubness | None:
        """Reads the file of a checkpoint folder; None if it has none.

        Raises:
            EncoderError: the file is damaged, or belongs to another checkpoint.
        """
        path = folder / HUBNESS
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = {name: value.astype(np.float32) for name, value in load_file(path).items()}
            shared, constant = (float(value) for value in tensors["settings"])
            banks = []
            for name in ("image", "text"):
                weight, mean, *own = map(float, tensors[f"{name}.settings"])
                temperature = own[0] if own else shared  # the first such files had one temperature for both
                banks.append(Bank(tensors[f"{name}.centroids"], tensors[f"{name}.shares"], weight, mean, temperature))
            found = cls(tensors["rotation"], banks[0], banks[1], constant)
            right = found.rotation.shape == (dim, dim - 2)
            right &= all(bank.centroids.shape == (len(bank.shares), dim) for bank in banks)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from None
        if not right:
            raise EncoderError(f"{path} is not of a model of {dim} dimensions: copy the checkpoint folder again")
        return found

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of the file, by name."""
        tensors: dict[str, NDArray[Any]] = {
            "rotation": self.rotation,
            "settings": np.array([self.of_images.temperature, self.constant], np.float32),
        }
        for name, bank in (("image", self.of_images), ("text", self.of_texts)):
            tensors[f"{name}.centroids"] = bank.centroids.astype(np.float16)
            tensors[f"{name}.shares"] = bank.shares
            tensors[f"{name}.settings"] = np.array([bank.weight, bank.mean, bank.temperature], np.float32)
        return tensors

    def images(self, vectors: Array) -> Array:
        """The image tower's unit vectors (n, dim) → corrected ones, float32 (n, dim), unit length."""
        return self._corrected(vectors, self.of_images, first=True)

    def texts(self, vectors: Array) -> Array:
        """The text tower's unit vectors (n, dim) → float32 (n, dim), unit length."""
        return self._corrected(vectors, self.of_texts, first=False)

    def _corrected(self, vectors: Array, bank: Bank, *, first: bool) -> Array:
        lowered = -bank.weight / self.constant * bank.near(vectors)
        constant = np.full_like(lowered, self.constant)
        last = np.stack([lowered, constant] if first else [constant, lowered], 1)
        whole = np.concatenate([vectors @ self.rotation, last], 1)
        unit: Array = (whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype(np.float32)
        return unit
