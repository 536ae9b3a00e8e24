"""Pictures and texts as a caller has them → what a tower takes.

`load_encoder` gives encoders that accept both a ready batch of pixels and pictures in any common form. Decoding and
resizing are those of `brivl_search.corpus`, so a path gives the vector that `build-index` stores for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.images import DecodedImage, decode, prepare, read_file
from brivl_search.corpus.pixels import PixelSpec
from brivl_search.corpus.text import check_text
from brivl_search.display import printable
from brivl_search.encoders.base import Origin, Pictures, Texts
from brivl_search.errors import ImageError, UsageError

EncodePixels: TypeAlias = Callable[[NDArray[np.uint8], Sequence[Origin] | None], NDArray[np.float32]]

CHUNK = 64  # pictures that are decoded before they are embedded


def encode_any(
    pictures: Pictures, spec: PixelSpec, dim: int, encode: EncodePixels, *, chunk: int = CHUNK
) -> NDArray[np.float32]:
    """Pictures in any form → float32 (n, dim), in order.

    Args:
        pictures: a ready batch, uint8 RGB (n, S, S, 3) as `spec` says: it goes to `encode` as it is. Or pictures, each
            a path (CONTAINER::MEMBER too), the bytes of an image file, a PIL image, or uint8 RGB (height, width, 3)
            of any size. A single picture counts as a sequence of one.
        spec: how the encoder wants its pixels.
        dim: length of a vector.
        encode: pixels uint8 (n, S, S, 3), and where they come from if that is known, → float32 (n, dim).
        chunk: pictures decoded, in this process, before they are embedded.

    Raises:
        UsageError: something else was given, or a path does not exist.
        ImageError: a picture cannot be decoded; the message names it.
    """
    if isinstance(pictures, np.ndarray) and is_batch(pictures, spec):
        return encode(pictures, None)
    listed = _listed(pictures)
    for number, picture in enumerate(listed, 1):
        if not _is_picture(picture):
            raise UsageError(
                "encode_images takes paths, bytes of image files, PIL images, arrays uint8 (height, width, 3), or one "
                f"batch uint8 (n, {spec.size}, {spec.size}, 3); number {number} is {_kind(picture)}"
            )
    vectors = [np.empty((0, dim), dtype=np.float32)]
    for start in range(0, len(listed), chunk):
        part = listed[start : start + chunk]
        decoded = [_decoded(picture, spec, number) for number, picture in enumerate(part, start + 1)]
        origins = [_origin(picture, one) for picture, one in zip(part, decoded, strict=True)]
        vectors.append(encode(np.stack([one.pixels for one in decoded]), origins))
    return np.concatenate(vectors)


def fitted(pictures: NDArray[np.uint8], spec: PixelSpec) -> NDArray[np.uint8]:
    """Pictures uint8 RGB (n, height, width, 3) → a ready batch for an encoder that wants `spec`.

    Squares of its size are one already, except for encoders that take patches.
    """
    if spec.resize != "patches" and is_batch(pictures, spec):
        return pictures
    return np.stack([_decoded(one, spec, at).pixels for at, one in enumerate(pictures, 1)])


def is_batch(pixels: NDArray[Any], spec: PixelSpec) -> bool:
    """Whether an array is a ready batch: uint8 (n, S, S, 3) with S the encoder's size."""
    return pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1:] == (spec.size, spec.size, 3)


def as_texts(texts: Texts) -> Sequence[str]:
    """Texts as a sequence; a single text counts as a sequence of one, not as its letters.

    Raises:
        UsageError: something in it is not a str, or holds half a character or bytes that were not UTF-8.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | bytearray):
        raise UsageError(f"encode_texts takes a text or a sequence of texts (str), not {_kind(texts)}")
    listed = texts if isinstance(texts, list | tuple) else list(texts)
    for number, text in enumerate(listed, 1):
        if not isinstance(text, str):
            raise UsageError(f"encode_texts takes texts (str); number {number} is {_kind(text)}")
        check_text(text, f"text {number}")
    return listed


def _listed(pictures: Any) -> list[Any]:
    """One picture → a list of it; several → a list of them."""
    if _is_picture(pictures) or not isinstance(pictures, Iterable):
        return [pictures]
    return list(pictures)


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size)
    return isinstance(value, str | os.PathLike | bytes) or _is_pil(value)


def _is_pil(value: Any) -> bool:
    """Told by what it can do: Pillow is not imported for the question."""
    return hasattr(value, "getexif") and hasattr(value, "convert")


def _kind(value: Any) -> str:
    """What a value is, for a message: "a float32 array (1, 64, 64, 3)", "an int"."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _decoded(picture: Any, spec: PixelSpec, number: int) -> DecodedImage:
    try:
        if isinstance(picture, str | os.PathLike):
            return decode(read_file(os.fsdecode(picture)), spec)
        if isinstance(picture, bytes):
            return decode(picture, spec)
        if isinstance(picture, np.ndarray):
            from PIL import Image

            return prepare(Image.fromarray(picture), spec)
        return prepare(picture, spec)
    except ImageError as error:
        is_path = isinstance(picture, str | os.PathLike)
        name = printable(os.fsdecode(picture)) if is_path else f"picture {number}"
        if error.reason == "file vanished":
            raise UsageError(f"no such file: {name}: check the path") from None
        raise ImageError(error.reason, f"{name}: {error.detail}" if error.detail else name) from None


def _origin(picture: Any, decoded: DecodedImage) -> Origin:
    if isinstance(picture, str | os.PathLike):
        return Origin(os.path.abspath(picture), decoded.width, decoded.height)
    return Origin("", decoded.width, decoded.height, picture if isinstance(picture, bytes) else None)
