"""The seam between the engine and any model: an `Encoder` turns images and texts into unit vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders.calibration import Calibration


class Encoder(Protocol):
    """Two towers and their preprocessing.

    Attributes:
        name: how the user calls it ("brivl-mini", a folder, ...); stored in indexes.
        dim: length of a vector.
        fingerprint: hash of weights and preprocessing; two encoders with one fingerprint give the same vectors.
        pixels: how an image file becomes the pixels that `encode_images` takes.
        calibration: from the cosine of a text and a picture to the probability that they belong together, if known.
    """

    name: str
    dim: int
    fingerprint: str
    pixels: PixelSpec
    calibration: Calibration | None

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 RGB (n, S, S, 3) as `self.pixels` says → float32 (n, dim), unit length."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim), unit length. Texts longer than the tower takes are cut; see `cut_tokens`."""
        ...

    def warm_up(self) -> None:
        """Loads the image tower now rather than with the first pictures."""
        ...

    def cut_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text the tower does not see (0: it sees the whole text)."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Which picture some pixels were.

    Attributes:
        path: absolute; CONTAINER::MEMBER inside a tar, TSV or LMDB; "" where it has none.
        width, height: in pixels, after EXIF orientation.
        content: of the file, where it has no path and may be decoded again.
    """

    path: str
    width: int
    height: int
    content: bytes | None = field(default=None, repr=False)


@runtime_checkable
class PictureEncoder(Protocol):
    """An `Encoder` that wants to know whose pixels it is given, because the picture's boxes lie in a file."""

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        """As `Encoder.encode_images`, with an origin for each picture."""
        ...


def encode_pictures(encoder: Encoder, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
    """uint8 (n, S, S, 3) and where they came from → float32 (n, dim), whether the encoder asks for origins or not."""
    if isinstance(encoder, PictureEncoder):
        return encoder.encode_pictures(pixels, origins)
    return encoder.encode_images(pixels)
