"""The bytes of one image become uint8 RGB pixels, or an ImageError with a short, countable reason.

Pictures come from anywhere, so nothing about a file is believed: the size in the header is checked before anything is
decoded, only formats read by plain decoders are opened (no PostScript), and whatever Pillow raises ends as one of

    empty file · not an image · unsupported format · truncated · corrupt · too large · out of memory
    file vanished · permission denied · not a regular file · read error

Pillow is imported by the first decode, not by importing this module.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus import exif, pixels
from brivl_search.corpus.containers import access
from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.pixels import PixelSpec as PixelSpec
from brivl_search.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 178.0
MAX_FILE_BYTES = 2 << 30

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "ICO", "PPM")
_PLUGINS = ("Bmp", "Gif", "Jpeg", "Ppm", "Png", "Webp", "Tiff", "Mpo", "Avif", "Jpeg2K", "Ico")
_PLUGIN_MODULES = {"Webp": "WebPImagePlugin", "Jpeg2K": "Jpeg2KImagePlugin"}
_TRUNCATED = ("truncated", "unexpected end", "not enough image data", "not enough data", "end of file", "eof")
_UPRIGHT = {  # EXIF orientation -> the Transpose that undoes it
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image.

    Attributes:
        pixels: uint8 (size, size, 3), RGB, writable.
        width: width of the original, after EXIF orientation.
        height: height of the original, after EXIF orientation.
        taken: when, by its EXIF block: ISO 8601 local time without a zone; "" where it does not say.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    taken: str = ""


def load_pixels(source: str | bytes, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        source: a path (str; CONTAINER::MEMBER for an image inside a tar, TSV or LMDB) or the content of a file (bytes).
        spec: what the pixels shall look like.
        max_megapixels: refuse larger images before decoding them.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ImageError: the image cannot be read; see the reasons at the top of this module.
    """
    data = read_file(source) if isinstance(source, str) else source
    return decode(data, spec, max_megapixels=max_megapixels).pixels


def read_file(path: str, *, max_bytes: int = MAX_FILE_BYTES, place: Place | None = None) -> bytes:
    """Read a regular file whole; never waits on a FIFO or a device that took a file's place.

    Args:
        path: the file, or CONTAINER::MEMBER.
        max_bytes: refuse larger ones.
        place: where the member lies; None: the container is looked through for it.

    Raises:
        ImageError: "file vanished", "permission denied", "not a regular file", "too large", "read error"; for a
            member also the reasons of `containers.access.read`.
    """
    place = place or access.locate(path)
    if place is not None:
        return access.read(place, max_bytes)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb", buffering=0) as handle:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file")
            if status.st_size > max_bytes:
                raise ImageError("too large", f"{status.st_size} bytes, the limit is {max_bytes}")
            return handle.readall() or b""
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("file vanished", error.strerror or "") from error
    except PermissionError as error:
        raise ImageError("permission denied", error.strerror or "") from error
    except IsADirectoryError as error:
        raise ImageError("not a regular file", "a folder") from error
    except MemoryError as error:
        raise ImageError("out of memory", "reading the file") from error
    except (OSError, ValueError) as error:
        raise ImageError("read error", getattr(error, "strerror", None) or str(error)) from error


def decode(data: bytes, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedImage:
    """Decode the content of one image file: first frame, upright, transparency on white, 16-bit scaled to 8.

    Raises:
        ImageError: the image cannot be read.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with _quiet_pillow():
            return _decode(data, spec, max_megapixels)
    except ImageError:
        raise
    except Exception as error:
        raise _as_image_error(error, data) from error


def _decode(data: bytes, spec: PixelSpec, max_megapixels: float) -> DecodedImage:
    image_module = _pillow()
    with image_module.open(io.BytesIO(data), formats=_openable()) as image:
        width, height = image.size
        _check_area(width, height, max_megapixels)
        taken = exif.taken(image) if image.format == "TIFF" else ""
        if image.format in ("JPEG", "MPO") and spec.antialias:
            # libjpeg scales by 1/2, 1/4 or 1/8 while decoding, never below the size asked for: twice the target,
            # so that the resize below still decides what the pixels look like.
            enough = 2 * max(spec.size, spec.short_side)
            image.draft(None, (enough, enough))
            image.load()
        else:
            image.load()
            width, height = image.size  # TIFF turns itself upright while loading
            _check_area(width, height, max_megapixels)
        taken = taken or exif.taken(image)  # in a PNG the block may follow the pixels
        return _prepare(image, spec, (width, height), taken)


def prepare(image: Image.Image, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedImage:
    """An image that Pillow has opened or made, treated as `decode` treats a file; a JPEG is decoded in full size.

    Raises:
        ImageError: the image cannot be read.
    """
    try:
        with _quiet_pillow():
            _check_area(*image.size, max_megapixels)
            image.load()
            return _prepare(image, spec, image.size, "")
    except ImageError:
        raise
    except Exception as error:
        raise _as_image_error(error, b"") from error


def _prepare(image: Image.Image, spec: PixelSpec, stored: tuple[int, int], taken: str) -> DecodedImage:
    """Loaded pixels → the tower's; `stored` is the size in the file, which `draft` may have divided and rounded."""
    width, height = stored
    upright = _UPRIGHT.get(_orientation(image))
    if upright and upright not in ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"):
        width, height = height, width
    turn = _pillow().Transpose[upright] if upright else None
    return DecodedImage(pixels.to_square(_to_smooth_mode(image), spec, stored, turn), width, height, taken)


def _check_area(width: int, height: int, max_megapixels: float) -> None:
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"{width}x{height} pixels")
    if width * height > round(max_megapixels * 1e6):
        detail = f"{width}x{height} pixels, the limit is {max_megapixels:g} megapixels (raise it with `max_megapixels`)"
        raise ImageError("too large", detail)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or it cannot be read."""
    if not ({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys()):
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block is no reason to lose the picture
        return 1


def _to_smooth_mode(image: Image.Image) -> Image.Image:
    """Bring modes that cannot be interpolated, or whose range is not 0..255, to one that can and is."""
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _scaled_to_8_bits(image)
    if mode == "LAB":
        from PIL import ImageCms

        to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, to_rgb)
        assert converted is not None
        return converted
    if image.has_transparency_data:
        return image if mode in ("RGBA", "LA") else image.convert("RGBA")
    if mode in ("RGB", "L", "CMYK", "YCbCr"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or floating point, to 8 bits by its range: 0..1, 0..255, 0..65535, else min..max."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    scale, shift = 255.0 / ((high - low) or 1.0), low
    if image.mode.startswith("I;16"):
        scale, shift = 1 / 257, 0.0
    elif low >= 0 and high <= 65535:
        shift = 0.0
        scale = 255.0 if image.mode == "F" and high <= 1 else 1.0 if high <= 255 else 1 / 257
    scaled = values * scale - shift * scale
    grey: Image.Image = _pillow().fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
    return grey


def _as_image_error(error: Exception, data: bytes) -> ImageError:
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
    head = data[:16]
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"heim", b"heis"):
        return ImageError("unsupported format", "HEIC: pip install pillow-heif")
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        detail = "damaged AVIF header" if "AVIF" in _openable() else "AVIF: this Pillow was built without it"
        return ImageError("corrupt" if "AVIF" in _openable() else "unsupported format", detail)
    magics = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    for magic, name in magics.items():
        if head.startswith(magic):
            return ImageError("corrupt", f"the {name} header cannot be read")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ImageError("corrupt", "the WEBP header cannot be read")
    return ImageError("not an image")


@functools.cache
def _pillow() -> Any:
    """PIL.Image with exactly the decoders of `_FORMATS` ready (Pillow's own `init` would import some forty)."""
    import importlib

    from PIL import Image

    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module("PIL." + _PLUGIN_MODULES.get(name, name + "ImagePlugin"))
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return Image


@functools.cache
def _openable() -> tuple[str, ...]:
    known = _pillow().OPEN
    return tuple(name for name in _FORMATS if name in known)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_undo = contextlib.ExitStack()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings and lift its own size limit (ours is checked on every header) while anyone decodes.

    Both are process-wide in Python, so threads that decode at the same time share one change: the first one in makes
    it, the last one out undoes it.
    """
    global _quiet_depth
    image_module = _pillow()
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
