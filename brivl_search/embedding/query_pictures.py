"""Single pictures, by path or content → vectors, in this process; what cannot be read is told by its name."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.containers.place import SEPARATOR
from brivl_search.corpus.images import DecodedImage, decode, read_file
from brivl_search.display import printable
from brivl_search.encoders.base import Encoder, Origin, encode_pictures
from brivl_search.errors import ImageError, UsageError

Vector = NDArray[np.float32]

_AT_ONCE = 32  # pictures in one call of the tower


def picture_source(picture: Any) -> str | os.PathLike[str] | bytes:
    """A path or a file's content as they are, other pictures as a file's content. Raises UsageError for the rest."""
    if isinstance(picture, str | os.PathLike | bytes):
        return picture
    shape: tuple[int, ...] = getattr(picture, "shape", ())
    if len(shape) == 3 and shape[2] == 3 and str(getattr(picture, "dtype", "")) == "uint8":
        from PIL import Image

        picture = Image.fromarray(picture)
    if not hasattr(picture, "save"):
        what = f"{picture.dtype} {shape}" if shape else f"a {type(picture).__name__}"
        raise UsageError(f"`image` is {what}: give a path, bytes, a PIL image or uint8 (height, width, 3)")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def embed_pictures(encoder: Encoder, sources: Sequence[str | bytes]) -> dict[str | bytes, Vector | UsageError]:
    """float32 (dim,) of each picture, unit length; or what is wrong with it.

    Args:
        encoder: whose image tower is used.
        sources: paths, members of containers (CONTAINER::MEMBER), or files' contents.
    """
    found: dict[str | bytes, Vector | UsageError] = {}
    different = list(dict.fromkeys(sources))
    for at in range(0, len(different), _AT_ONCE):
        found |= _embed(encoder, different[at : at + _AT_ONCE])
    return found


def _embed(encoder: Encoder, sources: Sequence[str | bytes]) -> dict[str | bytes, Vector | UsageError]:
    out: dict[str | bytes, Vector | UsageError] = {}
    pictures: dict[str | bytes, DecodedImage] = {}
    for source in sources:
        try:
            pictures[source] = decode(read_file(source) if isinstance(source, str) else source, encoder.pixels)
        except ImageError as error:
            out[source] = _unreadable(source, error)
    if pictures:
        origins = [
            Origin(os.path.abspath(source), one.width, one.height)
            if isinstance(source, str)
            else Origin("", one.width, one.height, source)
            for source, one in pictures.items()
        ]
        pixels = np.stack([one.pixels for one in pictures.values()])
        out |= zip(pictures, encode_pictures(encoder, pixels, origins), strict=True)
    return out


def _unreadable(source: str | bytes, error: ImageError) -> UsageError:
    name = printable(source) if isinstance(source, str) else "of these bytes"
    if error.reason != "file vanished":
        return UsageError(f"`image` {name}: {error}", code=error.code, details=error.details)
    why = f" ({error.detail})" if SEPARATOR in name else ""  # which member of which container
    return UsageError(f"`image` {name}: no such file{why}", code="no_such_file", details={"path": name})
