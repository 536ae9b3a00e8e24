"""Keys: how an index names its items, and how LMDB stores these names.

An image's key is its absolute path. A caption's key joins its image's key, its field and the head of its text's hash
with NUL. So all captions of an image, and all items below a folder, are one range of keys.
"""

from __future__ import annotations

import hashlib

SHORT = 480  # bytes; LMDB allows 511, and a prefix goes in front
_PART = "\0"
_HASH_DIGITS = 24


def caption_key(image: str, field: str, content: str) -> str:
    """The key of a caption.

    Args:
        image: its image's key.
        field: of the caption file.
        content: sha256 of its text, in hexadecimal.
    """
    return f"{image}{_PART}{field}{_PART}{content[:_HASH_DIGITS]}"


def caption_parts(key: str) -> tuple[str, str]:
    """(image's key, field) of a caption's key; the field is "" for a key that `import` was given."""
    image, _, rest = key.partition(_PART)
    return image, rest.partition(_PART)[0]


def captions_of(image: str) -> str:
    """What the keys of an image's captions begin with."""
    return image + _PART


def to_lmdb(prefix: bytes, key: str) -> bytes:
    """`prefix` + "=" + the key itself, or `prefix` + "~" + its sha256 where the key is too long for LMDB."""
    raw = key.encode("utf-8", "surrogateescape")
    if len(raw) <= SHORT:
        return prefix + b"=" + raw
    return prefix + b"~" + hashlib.sha256(raw).digest()


def lmdb_ranges(prefix: bytes, beginning: str) -> tuple[bytes, bytes]:
    """Where LMDB keys lie whose keys begin like this: the short ones, and all the long ones, which are hashed."""
    raw = beginning.encode("utf-8", "surrogateescape")
    return prefix + b"=" + raw[:SHORT], prefix + b"~"
