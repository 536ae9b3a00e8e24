"""Keys: how an index names its items, and how LMDB stores these names.

An image's key is its absolute path. A caption's key joins its image's key, its field and the head of its text's hash
with NUL. So all captions of an image, and all items below a folder, are one range of keys.
"""

from __future__ import annotations

import hashlib

SHORT = 480  # bytes; LMDB allows 511, and a prefix goes in front
_PART = "\0"
_HASH_DIGITS = 24
_GENERATED = "\x01"  # before a field that no caption file can have


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


def generated_field(language: str, image: str, captioner: str) -> str:
    """What stands for the field in the key of a caption that a build generated.

    Args:
        language: of the caption.
        image: hash of the picture's content: of another picture it would be another caption.
        captioner: fingerprint of the model.
    """
    short = hashlib.sha256(captioner.encode()).hexdigest()[:12]
    return f"{_GENERATED}{language}/{image[:_HASH_DIGITS]}/{short}"


def generated_language(field: str) -> str:
    """The language of what `generated_field` made; "" of any other field."""
    return field.removeprefix(_GENERATED).partition("/")[0] if field.startswith(_GENERATED) else ""


def is_generated(key: str, image: str | None = None) -> bool:
    """Whether a build generated the caption of this key; with `image`, of a picture of this content."""
    field = caption_parts(key)[1]
    if not field.startswith(_GENERATED):
        return False
    return image is None or field.removeprefix(_GENERATED).split("/")[1:2] == [image[:_HASH_DIGITS]]


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
