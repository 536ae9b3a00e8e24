"""Pictures and texts → vectors, a batch at a time: decode in worker processes, stack, encode."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.decode_pool import Decoded, decode_all, default_workers
from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.walk import ImageFile
from brivl_search.encoders.base import Encoder, Origin, encode_pictures

DType = Literal["float32", "float16"]
BATCH = 64  # pictures a forward pass
TEXT_BATCH = 256
_MOST_WAITING = 8  # batches' worth of pictures that wait although few of them need the encoder


def in_batches(
    decoded: Iterable[Decoded], batch_size: int, counts: Callable[[Decoded], bool]
) -> Iterator[list[Decoded]]:
    """Groups pictures so that each group holds one forward pass of work.

    Args:
        decoded: pictures in any order.
        batch_size: pictures that count in a group, at most.
        counts: whether the encoder has to see a picture; skipped and known ones do not count. Asked once for each.

    Yields:
        Lists in the given order, none empty.
    """
    waiting: list[Decoded] = []
    ready = 0
    for one in decoded:
        waiting.append(one)
        ready += counts(one)
        if ready == batch_size or len(waiting) == _MOST_WAITING * batch_size:
            yield waiting
            waiting, ready = [], 0
    if waiting:
        yield waiting


def first_of_each(batch: Sequence[Decoded], contents: Container[str]) -> dict[str, Decoded]:
    """Of every content that is one of `contents`, its first picture in a batch, by the content's hash."""
    return {one.sha256: one for one in reversed(batch) if one.sha256 in contents}


def look_ahead(batch_size: int) -> int:
    """How many pictures are decoded ahead of the encoder."""
    return max(4 * batch_size, 256)


def encode_decoded(encoder: Encoder, pictures: Sequence[Decoded]) -> NDArray[np.float32]:
    """Stacks decoded pictures and runs the image tower: float32 (n, dim), unit length; n may be 0."""
    pixels = [one.pixels for one in pictures if one.pixels is not None]
    if len(pixels) != len(pictures):
        raise ValueError("a picture without pixels cannot be encoded")
    if not pixels:
        return np.zeros((0, encoder.dim), np.float32)
    origins = [Origin(one.file.path, one.width, one.height) for one in pictures]
    return encode_pictures(encoder, np.stack(pixels), origins)


@dataclass(frozen=True)
class Embedded:
    """One picture, and its vector float32 (dim,), unit length; None if it was skipped (`decoded.reason`)."""

    decoded: Decoded
    vector: NDArray[np.float32] | None


def embed_images(
    files: Sequence[ImageFile],
    encoder: Encoder,
    *,
    workers: int | None = None,
    batch_size: int = BATCH,
    max_megapixels: float = MAX_MEGAPIXELS,
    advance: Callable[[int], None] = lambda steps: None,
) -> Iterator[Embedded]:
    """Every file in order, decoded in worker processes and embedded a batch at a time; what cannot be read is named.

    Args:
        files: the images.
        encoder: the model.
        workers: decoding processes; None: one a CPU; 0: none.
        batch_size: pictures a forward pass.
        max_megapixels: skip larger ones.
        advance: told how many files are done.
    """
    decoded = decode_all(
        files,
        encoder.pixels,
        workers=default_workers() if workers is None else workers,
        max_megapixels=max_megapixels,
        ahead=look_ahead(batch_size),
    )
    for batch in in_batches(decoded, batch_size, lambda one: one.pixels is not None):
        vectors = iter(encode_decoded(encoder, [one for one in batch if one.pixels is not None]))
        advance(len(batch))
        for one in batch:
            yield Embedded(one, None if one.pixels is None else next(vectors))


def embed_texts(texts: Sequence[str], encoder: Encoder) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every text in order with its vector, float32 (dim,), unit length."""
    for start in range(0, len(texts), TEXT_BATCH):
        part = texts[start : start + TEXT_BATCH]
        yield from zip(part, encoder.encode_texts(part), strict=True)


def numbers(vector: NDArray[np.float32], dtype: DType) -> list[float]:
    """A vector for JSON: of each number no more digits than tell it from its neighbours in `dtype`."""
    return [float(str(value)) for value in vector.astype(dtype)]
