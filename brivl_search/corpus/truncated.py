"""Files whose last bytes are missing: does a pixel depend on them?

A copy that broke off, or a camera that lost power, may leave a file without its end mark and with every pixel. Such a
file is completed in two ways that differ in all the missing bytes. If both give the same pixels in full size, none of
them depends on what is missing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

from brivl_search.corpus import codecs, kinds
from brivl_search.errors import ImageError

_MOST = 4096  # bytes that may be missing behind the last pixel's
_ENDS = {"JPEG": b"\xff\xd9", "JPEG 2000": b"\xff\xd9", "GIF": b"\0;", "BMP": b"", "PPM": b"", "WEBP": b""}
_REASONS = ("truncated", "corrupt")


def mended(data: bytes, error: ImageError, max_megapixels: float) -> bytes | None:
    """The same file with an end, where no pixel is missing; None: it is damaged in another way, or pixels are missing.

    Args:
        data: content of a file that did not decode.
        error: why.
        max_megapixels: larger pictures are not looked at.
    """
    name = kinds.format_name(data[: kinds.HEAD])
    if error.reason not in _REASONS or name not in _ENDS or not _may_be_cut(data, name, error):
        return None
    first, second = _completed(data, name)
    try:
        with codecs.quiet():
            pixels = _digest(first, max_megapixels)
            return first if pixels is not None and pixels == _digest(second, max_megapixels) else None
    except Exception:  # it does not decode whatever stands at its end
        return None


def _may_be_cut(data: bytes, name: str, error: ImageError) -> bool:
    """Whether it looks like a file that ends too early, and not like any other damage."""
    if name == "WEBP":
        missing = int.from_bytes(data[4:8], "little") + 8 - len(data)
        return 0 < missing <= _MOST
    if name == "JPEG 2000":  # the length of its last part stands in that part's header
        at, end = data.rfind(b"\xff\x90\0\x0a"), len(data) - data.endswith(b"\xff")
        return at >= 0 and at + int.from_bytes(data[at + 6 : at + 10], "big") == end
    if name == "JPEG":
        return error.reason == "truncated" and _all_scans(data)
    return error.reason == "truncated"


def _completed(data: bytes, name: str) -> tuple[bytes, bytes]:
    end = _ENDS[name]
    if name == "WEBP":
        missing = int.from_bytes(data[4:8], "little") + 8 - len(data)
        return data + bytes(missing), data + (b"\x5a\xa5" * missing)[:missing]
    if name in ("JPEG", "JPEG 2000"):
        data = data.removesuffix(b"\xff")  # half of the end mark
    if name == "JPEG 2000":
        return data + end, data + end
    if name == "JPEG":  # nothing, and what would be read as coefficients
        return data + end, data + b"\x5a\xa5\x3c" * 64 + end
    return data + bytes(_MOST) + end, data + b"\xa5\x5a" * (_MOST // 2) + end


def _digest(data: bytes, max_megapixels: float) -> bytes | None:
    """Of the pixels in full size; None: too many of them."""
    with codecs.pillow().open(io.BytesIO(data), formats=codecs.openable(data)) as image:
        if image.width * image.height > max_megapixels * 1e6:
            return None
        image.load()
        return hashlib.sha256(image.tobytes()).digest()


def _all_scans(data: bytes) -> bool:
    """Whether every component of a JPEG has all of its scans, as far as their headers tell.

    A progressive file may break off between two scans. It decodes then, and what it lacks is sharpness.
    """
    components: list[int] = []
    left: dict[tuple[int, int], int] = {}  # (component, coefficient) → bits of it that are still to come
    progressive = False
    for marker, segment in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2) and len(segment) > 5 and not components:
            progressive = marker == 0xC2
            components = [segment[6 + 3 * at] for at in range(segment[5]) if 6 + 3 * at < len(segment)]
            left = {(one, k): 1 for one in components for k in range(64 if progressive else 1)}
        elif marker == 0xDA and segment:
            count = segment[0]
            if len(segment) < 4 + 2 * count:
                return False
            first, last, low = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 15
            for one in (segment[1 + 2 * at] for at in range(count)):
                for k in range(first, last + 1) if progressive else (0,):
                    left[one, k] = low if progressive else 0
    return bool(components) and not any(left.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, its bytes) of a JPEG's headers; what is coded between them is passed over."""
    at = 2
    while 0 <= at < len(data) - 3:
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF, *range(0xD0, 0xDA)):
            at = data.find(b"\xff", at + 1)  # in coded data, or filling
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
