"""Kinds of image files by their first bytes, not by their names: so nothing that is no picture passes for a page."""

from __future__ import annotations

from brivl_search.corpus import kinds

_KINDS = {  # format → media type, ending
    "JPEG": ("image/jpeg", ".jpg"),
    "PNG": ("image/png", ".png"),
    "GIF": ("image/gif", ".gif"),
    "WEBP": ("image/webp", ".webp"),
    "BMP": ("image/bmp", ".bmp"),
    "TIFF": ("image/tiff", ".tif"),
    "ICO": ("image/x-icon", ".ico"),
    "JPEG 2000": ("image/jp2", ".jp2"),
    "AVIF": ("image/avif", ".avif"),
    "HEIC": ("image/heic", ".heic"),
    "PPM": ("", ".ppm"),
}


def media_type(data: bytes) -> str:
    """What a file is sent as; bytes to be saved where its kind is not known."""
    return _kind(data)[0] or "application/octet-stream"


def ending(data: bytes) -> str:
    """The ending under which an upload is kept, which has been decoded; "" where its kind is not known."""
    return _kind(data)[1]


def _kind(data: bytes) -> tuple[str, str]:
    return _KINDS.get(kinds.format_name(data[: kinds.HEAD]), ("", ""))
