"""What a matcher reads of a picture, as a shard keeps it: regions' tokens in bytes, and the picture's hub number.

A row's regions are a value of their own, so no value is large, however many rows there are. All is little-endian:

    crc      uint32: CRC-32 of all that follows
    hub      float32
    sizes    uint16, uint16: regions, numbers of a region
    scales   float32 (regions,)
    tokens   int8 (regions, numbers); a token is its scale times its bytes

Half a step of a region's scale is the most that a number is off: 1/254 of the region's largest.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<fHH")
_MOST = 127.0


@dataclass(frozen=True)
class Regions:
    """Tokens of a picture's regions, float16 (R, width), and its hub number."""

    tokens: NDArray[np.float16]
    hub: float


def packed_bytes(regions: int, width: int) -> int:
    """Bytes of `pack` for so many regions of so many numbers."""
    return _CRC.size + _HEAD.size + regions * (4 + width)


def pack(tokens: NDArray[np.floating], hub: float) -> bytes:
    """Tokens floating (R, width), R and width below 65,536, and a hub number, as a shard keeps them.

    Raises:
        ValueError: a number is not finite.
    """
    exact = np.asarray(tokens, np.float32)
    if not (np.isfinite(exact).all() and np.isfinite(hub)):
        raise ValueError("regions that are not finite")
    scales = (np.abs(exact).max(1, initial=0.0) / _MOST).astype("<f4")
    steps = np.divide(exact, scales[:, None], out=np.zeros_like(exact), where=scales[:, None] > 0)
    small = np.rint(steps).clip(-_MOST, _MOST).astype(np.int8)
    body: bytes = _HEAD.pack(hub, *exact.shape) + scales.tobytes() + small.tobytes()
    return _CRC.pack(zlib.crc32(body)) + body


def unpack(raw: bytes) -> Regions | None:
    """What `pack` was given, but for its rounding; None: the checksum differs, or these are none."""
    body = raw[_CRC.size :]
    if len(body) < _HEAD.size or zlib.crc32(body) != _CRC.unpack_from(raw)[0]:
        return None
    hub, count, width = _HEAD.unpack_from(body)
    if len(raw) != packed_bytes(count, width):
        return None
    end = _HEAD.size + 4 * count
    scales = np.frombuffer(body[_HEAD.size : end], "<f4").astype(np.float32)
    small = np.frombuffer(body[end:], np.int8).reshape(count, width)
    return Regions((small * scales[:, None]).astype(np.float16), float(hub))
