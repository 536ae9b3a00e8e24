"""What the encoders here share, whatever computes their towers: batches, and which inputs they take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.base import Origin, Pictures, Texts
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.confidence import Confidence
from brivl_search.encoders.inputs import as_texts, encode_any


class TwoTowers(ABC):
    """Base of the encoders here (see `brivl_search.encoders.base.LoadedEncoder`).

    A subclass sets `dim` and `fingerprint` and does the forward passes.
    """

    dim: int
    fingerprint: str

    def __init__(self, name: str, pixels: PixelSpec, *, batch_size: int) -> None:
        """Keeps the settings.

        Args:
            name: how the user calls the encoder.
            pixels: how a picture becomes the tower's pixels.
            batch_size: pictures or texts per forward pass.
        """
        self.name, self.pixels, self.batch_size = name, pixels, batch_size
        self.calibration: Calibration | None = None
        self.confidence: Confidence | None = None
        self.spare_memory = False  # texts rather go through NumPy, which is slower for many, than through torch

    @property
    def has_sides(self) -> bool:
        """Whether `encode_queries` gives other vectors than `encode_texts`."""
        return False

    def encode_images(self, pictures: Pictures) -> NDArray[np.float32]:
        """Pictures, or a ready batch uint8 RGB (n, S, S, 3) → float32 (n, dim), unit length.

        See `brivl_search.encoders.inputs.encode_any` for the forms a picture may have.

        Raises:
            UsageError: something else was given, or a path does not exist.
            ImageError: a picture cannot be decoded.
        """
        return encode_any(pictures, self.pixels, self.dim, self._encode_pixels)

    def encode_texts(self, texts: Texts) -> NDArray[np.float32]:
        """Texts → float32 (n, dim), unit length. A single text counts as a sequence of one.

        Raises:
            UsageError: something in it is not a str.
        """
        return self._encode_texts(as_texts(texts))

    def encode_queries(self, texts: Texts) -> NDArray[np.float32]:
        """As `encode_texts`, of texts that are searched with."""
        return self._encode_queries(as_texts(texts))

    def cut_tokens(self, texts: Texts) -> list[int]:
        """How many tokens of each text do not fit into the text tower; 0: the whole text fits."""
        return self._cut_tokens(as_texts(texts))

    def unknown_words(self, texts: Texts) -> list[list[str]]:
        """The words of each text that the tokenizer does not know, as the tower reads them, each once."""
        return self._unknown_words(as_texts(texts))

    @abstractmethod
    def spelled(self, texts: Sequence[str]) -> list[str]:
        """Each text as the tokenizer gets it, see `brivl_search.corpus.spelling`."""

    def warm_up(self) -> None:
        """Loads the image tower and runs it once."""
        self.encode_images(np.zeros((1, self.pixels.size, self.pixels.size, 3), dtype=np.uint8))

    @abstractmethod
    def _encode_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        """uint8 RGB (n, S, S, 3), and where they come from if that is known, → float32 (n, dim), unit length."""

    @abstractmethod
    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]: ...

    def _encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode_texts(texts)

    @abstractmethod
    def _cut_tokens(self, texts: Sequence[str]) -> list[int]: ...

    @abstractmethod
    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]: ...
