"""What every model looks like to the rest of the package: an `Encoder` turns images and texts into unit vectors.

Images and texts share one space: the cosine of an image's and a text's vector says how well they fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.confidence import Confidence

if TYPE_CHECKING:
    from PIL.Image import Image

Precision = Literal["auto", "fp32", "bf16"]  # of torch; `runtimes.choice` has what exports add
Picture: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image"
Pictures: TypeAlias = "Picture | Iterable[Picture]"
Texts: TypeAlias = str | Iterable[str]


class Encoder(Protocol):
    """An image tower, a text tower, and their preprocessing. This is what a plug-in implements.

    Attributes:
        name: how the user calls it ("brivl-mini", a folder, ...). An index stores it.
        dim: length of a vector.
        fingerprint: hash of the weights and the preprocessing. Two encoders with one fingerprint give the same vectors.
        pixels: how an image file becomes the pixels that `encode_images` takes.
        calibration: from the cosine of a text and a picture to the probability that they belong together, if known.
    """

    name: str
    dim: int
    fingerprint: str
    pixels: PixelSpec
    calibration: Calibration | None

    def encode_images(self, pixels: np.ndarray, /) -> np.ndarray:
        """A batch of pixels, uint8 RGB (n, S, S, 3) as `self.pixels` says → float32 (n, dim), unit length."""
        ...

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Texts → float32 (n, dim), unit length. A text longer than the tower takes is cut; see `cut_tokens`."""
        ...

    def warm_up(self) -> None:
        """Loads the image tower now, not with the first pictures."""
        ...

    def cut_tokens(self, texts: Sequence[str], /) -> list[int]:
        """How many tokens of each text the tower does not see. 0: it sees the whole text."""
        ...


@runtime_checkable
class KnowsWords(Protocol):
    """An `Encoder` that can say which words its tokenizer does not have. A plug-in may implement it."""

    def unknown_words(self, texts: Sequence[str], /) -> list[list[str]]:
        """The words of each text that the tower cannot tell from any other unknown word, as it reads them, each once.

        None are unknown to a tokenizer of bytes.
        """
        ...


@runtime_checkable
class Spells(Protocol):
    """An `Encoder` that reads texts in another spelling than they were given in."""

    def spelled(self, texts: Sequence[str], /) -> list[str]:
        """Each text as the tokenizer gets it. Doing it twice changes nothing more."""
        ...


@runtime_checkable
class Expects(Protocol):
    """An `Encoder` that gets ready for many pictures in another way than for few."""

    def expect(self, images: int) -> None:
        """Says how many pictures will be embedded."""
        ...


@runtime_checkable
class EmbedsQueries(Protocol):
    """An `Encoder` that embeds a text that is searched with differently from a caption. A plug-in may implement it."""

    def encode_queries(self, texts: Sequence[str], /) -> np.ndarray:
        """Texts that are searched with → float32 (n, dim), unit length; `encode_texts` is for captions then."""
        ...


class LoadedEncoder(Encoder, Protocol):
    """What `load_encoder` returns: an `Encoder` that also takes pictures and texts as a caller has them.

    `encode_images` takes a ready batch, or paths, PIL images, bytes of image files and uint8 arrays of any size:
    `brivl_search.encoders.inputs` has the rules. A single picture or text counts as a sequence of one.

    Attributes:
        confidence: from scores to the chance that a hit, or a pair, is right, where the model brings it.
        has_sides: whether `encode_queries` gives other vectors than `encode_texts`, which is for captions then.
    """

    confidence: Confidence | None

    @property
    def has_sides(self) -> bool: ...

    def encode_images(self, pictures: Pictures, /) -> np.ndarray:
        """Pictures, or a ready batch uint8 RGB (n, S, S, 3) → float32 (n, dim), unit length.

        Raises:
            UsageError: something else was given, or a path does not exist.
            ImageError: a picture cannot be decoded.
        """
        ...

    def encode_texts(self, texts: Texts, /) -> np.ndarray:
        """Texts → float32 (n, dim), unit length. A text longer than the tower takes is cut; see `cut_tokens`.

        Raises:
            UsageError: something in `texts` is not a str.
        """
        ...

    def encode_queries(self, texts: Texts, /) -> np.ndarray:
        """As `encode_texts`, of texts that are searched with: some models embed them differently from captions."""
        ...

    def cut_tokens(self, texts: Texts, /) -> list[int]:
        """How many tokens of each text the tower does not see. 0: it sees the whole text."""
        ...

    def unknown_words(self, texts: Texts, /) -> list[list[str]]:
        """The words of each text that the tokenizer does not know, as the tower reads them, each once.

        A text of such words alone has the same vector as any other. None are unknown to a tokenizer of bytes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the pixels of a picture come from.

    Attributes:
        path: absolute; CONTAINER::MEMBER inside a tar, TSV or LMDB; "" if there is none.
        width, height: of the picture, in pixels, after EXIF orientation.
        content: the bytes of the file, if there is no path and the picture may be decoded again.
    """

    path: str
    width: int
    height: int
    content: bytes | None = field(default=None, repr=False)


@runtime_checkable
class PictureEncoder(Protocol):
    """An `Encoder` that needs to know where pixels come from, because a file holds the boxes of each picture."""

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        """As `Encoder.encode_images`, with an origin for each picture."""
        ...


def encode_pictures(encoder: Encoder, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
    """uint8 (n, S, S, 3) and where they come from → float32 (n, dim), whether the encoder asks for origins or not."""
    if isinstance(encoder, PictureEncoder):
        return encoder.encode_pictures(pixels, origins)
    return encoder.encode_images(pixels)


def encode_queries(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Texts that are searched with → float32 (n, dim), unit length, whether the encoder tells them apart or not."""
    return encoder.encode_queries(texts) if isinstance(encoder, EmbedsQueries) else encoder.encode_texts(texts)


def has_sides(encoder: Encoder) -> bool:
    """Whether a text has another vector as a query than as a caption."""
    return bool(getattr(encoder, "has_sides", isinstance(encoder, EmbedsQueries)))


def unknown_words(encoder: Encoder, texts: Sequence[str]) -> list[list[str]]:
    """As `KnowsWords.unknown_words`; none for an encoder that cannot say."""
    return encoder.unknown_words(texts) if isinstance(encoder, KnowsWords) else [[] for _ in texts]


def spelled(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """As `Spells.spelled`; the texts themselves for an encoder that cannot say."""
    return encoder.spelled(texts) if isinstance(encoder, Spells) else list(texts)


def expect(encoder: Encoder, images: int) -> None:
    """As `Expects.expect`; nothing for an encoder that does not ask."""
    if isinstance(encoder, Expects):
        encoder.expect(images)


def confidence_of(encoder: Encoder) -> Confidence | None:
    """What turns an encoder's scores into chances; None for one that brings none."""
    return getattr(encoder, "confidence", None)
