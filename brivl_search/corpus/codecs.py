"""Pillow with just the decoders that pictures from anywhere are trusted to, and its many errors as countable reasons.

Pillow is imported by the first decode, not by importing this module; pillow-heif by the first HEIC picture.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

from brivl_search.corpus import kinds
from brivl_search.errors import ImageError

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
_PLUGINS = ("Bmp", "Gif", "Jpeg", "Ppm", "Png", "Webp", "Tiff", "Mpo", "Avif", "Jpeg2K", "Ico")
_PLUGIN_MODULES = {"Webp": "WebPImagePlugin", "Jpeg2K": "Jpeg2KImagePlugin"}
_TRUNCATED = ("truncated", "unexpected end", "not enough image data", "not enough data", "end of file", "eof")


@functools.cache
def pillow() -> Any:
    """PIL.Image with exactly the decoders of `_FORMATS` ready (Pillow's own `init` would import some forty)."""
    from PIL import Image

    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module("PIL." + _PLUGIN_MODULES.get(name, name + "ImagePlugin"))
    return Image


@functools.cache
def _heif() -> bool:
    """Make the HEIF decoder ready, with one thread a picture; False where there is none."""
    try:
        library = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    library.register_heif_opener(thumbnails=False, decode_threads=1)
    return True


@functools.cache
def _always() -> tuple[str, ...]:
    known = pillow().OPEN
    return tuple(name for name in _FORMATS if name in known)


def openable(data: bytes) -> tuple[str, ...]:
    """The formats that a file with this content may be opened as."""
    if kinds.by_content(data[: kinds.HEAD]) is kinds.HEIF and _heif():
        return ("HEIF", *_always())
    return _always()


def as_image_error(error: Exception, data: bytes) -> ImageError:
    """Pillow's many exceptions, as a reason a person can count."""
    from PIL import Image, UnidentifiedImageError

    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError):
        return ImageError("out of memory", text)
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too large", text)
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(data)
    if isinstance(error, EOFError) or any(word in text.lower() for word in _TRUNCATED):
        return ImageError("truncated", text)
    if isinstance(error, (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError)):
        return ImageError("corrupt", text)
    if isinstance(error, (struct.error, zlib.error)):
        return ImageError("corrupt", text)
    return ImageError("corrupt", f"{type(error).__name__}: {text}")


def _unidentified(data: bytes) -> ImageError:
    """Why no decoder took the file: its first bytes tell damage from another format from no image at all."""
    head = data[: kinds.HEAD]
    kind, name = kinds.by_content(head), kinds.format_name(head)
    if kind is None:
        return ImageError("not an image")
    if kind is kinds.VECTOR:
        return ImageError("not an image", f"{name}: {kind.remedy}")
    if not kinds.is_read(kind):
        return ImageError("unsupported format", f"{name}: {kind.remedy}")
    return ImageError("corrupt", f"the {name} header cannot be read")


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_undo = contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings and lift its own size limit (ours is checked on every header) while anyone decodes.

    Both are process-wide in Python, so threads that decode at the same time share one change: the first one in makes
    it, the last one out undoes it.
    """
    global _quiet_depth
    image_module = pillow()
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _quiet_undo.callback(setattr, image_module, "MAX_IMAGE_PIXELS", image_module.MAX_IMAGE_PIXELS)
            image_module.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_undo.close()
