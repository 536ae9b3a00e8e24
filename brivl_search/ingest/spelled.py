"""Captions and how the encoder reads them: what a caption's content is, and which vectors are of an older reading.

A caption's content, by which vectors are found again, is the hash of the text as the encoder reads it. Its key and its
record keep the text as it is written. So where the reading changes, and only there, the content changes with it: the
next build embeds the caption anew, and `stale_captions` counts it until then. The item's size tells how it was read, so
that a build that changes nothing need not read the texts again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from brivl_search.encoders.base import Encoder, spelled
from brivl_search.index import IndexReader

READING = 1  # counts up when `corpus.spelling` reads texts otherwise than before; 0: before there was any
_AT_ONCE = 1024
_SUM_BITS = 32  # of an item's size; the bits above are the reading


def size_now(checksum: int) -> int:
    """The size of a caption's item: the sum of its fields, and the reading that it was embedded with."""
    return READING << _SUM_BITS | checksum


def size_before(size: int) -> int:
    """The size that the same caption had before there were readings."""
    return size & ((1 << _SUM_BITS) - 1)


def content_of(text: str) -> str:
    """The content hash of a caption: sha256 of the text as the encoder reads it, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def stale_captions(directory: Path, encoder: Encoder) -> int:
    """How many captions of an index were embedded before the encoder read them as it does now.

    Reads every caption's record, and embeds nothing. `sync` embeds those captions anew that their folders still hold.

    Args:
        directory: the index.
        encoder: the one it was built with.

    Raises:
        IndexMissingError: there is no index.
    """
    stale = 0
    with IndexReader.open(directory) as reader:
        waiting: list[tuple[str, str]] = []
        for items, _ in reader.items("text"):
            for item in items:
                text = item.record.get("text")
                if item.size >> _SUM_BITS != READING and isinstance(text, str):
                    waiting.append((text, item.content))
            if len(waiting) >= _AT_ONCE:
                stale += _stale(waiting, encoder)
                waiting.clear()
        return stale + _stale(waiting, encoder)


def _stale(captions: list[tuple[str, str]], encoder: Encoder) -> int:
    texts = [text for text, _ in captions]
    pairs = zip(texts, spelled(encoder, texts), captions, strict=True)
    return sum(read != text and content == content_of(text) for text, read, (_, content) in pairs)
