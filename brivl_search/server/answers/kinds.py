"""Kinds of image files by their first bytes, not by their names: so nothing that is no picture passes for a page."""

from __future__ import annotations

_KINDS = (  # first bytes, media type, ending
    (b"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (b"\x89PNG", "image/png", ".png"),
    (b"GIF8", "image/gif", ".gif"),
    (b"BM", "image/bmp", ".bmp"),
    (b"II*\0", "image/tiff", ".tif"),
    (b"MM\0*", "image/tiff", ".tif"),
    (b"\0\0\1\0", "image/x-icon", ".ico"),
    (b"\0\0\0\x0cjP  ", "image/jp2", ".jp2"),
    (b"P6", "", ".ppm"),
)


def media_type(data: bytes) -> str:
    """What a file is sent as; bytes to be saved where its kind is not known."""
    return _kind(data)[0] or "application/octet-stream"


def ending(data: bytes) -> str:
    """The ending under which an upload is kept; it has been decoded, so what no other kind claims is a JPEG 2000."""
    return _kind(data)[1] or ".jp2"


def _kind(data: bytes) -> tuple[str, str]:
    for magic, media, suffix in _KINDS:
        if data.startswith(magic):
            return media, suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", ".webp"
    if data[4:8] == b"ftyp":
        return ("image/avif", ".avif") if data[8:12] in (b"avif", b"avis") else ("image/heic", ".heic")
    return "", ""
