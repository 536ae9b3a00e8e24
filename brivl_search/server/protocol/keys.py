"""Items' names in addresses: "i" or "t" and the item's key, or the SHA-256 of a long one, in base64url."""

from __future__ import annotations

import base64
import binascii
import hashlib

from brivl_search.index import Modality

_SHORT = 480  # bytes; keys up to here stand in LMDB, and here, as they are
_PLAIN: dict[str, Modality] = {"i": "image", "t": "text"}
_HASHED: dict[str, Modality] = {"I": "image", "T": "text"}


def encode(modality: Modality, key: str) -> str:
    """A key of the catalog → URL-safe name; the same in every generation."""
    raw = key.encode("utf-8", "surrogateescape")
    letter = modality[0]
    if len(raw) > _SHORT:
        letter, raw = letter.upper(), hashlib.sha256(raw).digest()
    return letter + base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(name: str) -> tuple[Modality, str | bytes] | None:
    """What `encode` was given; for a long key its SHA-256 (bytes). None if it is no such name."""
    modality = _PLAIN.get(name[:1]) or _HASHED.get(name[:1])
    if modality is None or len(name) > 1000:
        return None
    try:
        raw = base64.b64decode(name[1:] + "=" * (-len(name[1:]) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if name[0] in _HASHED:
        return (modality, raw) if len(raw) == hashlib.sha256().digest_size else None
    return modality, raw.decode("utf-8", "surrogateescape")
