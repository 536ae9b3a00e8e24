"""The bytes of one image become uint8 RGB pixels, or an ImageError with a short, countable reason.

Pictures come from anywhere, so nothing about a file is believed. The size in the header is checked before anything is
decoded. Only formats with plain decoders are opened (no PostScript). Whatever Pillow raises ends as one of

    empty file · not an image · unsupported format · truncated · corrupt · too large · out of memory
    file vanished · permission denied · not a regular file · read error

Pillow is imported by the first decode, not by importing this module.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus import codecs, colour, exif, phash, pixels, truncated
from brivl_search.corpus.containers import access
from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.pixels import PixelSpec as PixelSpec
from brivl_search.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 178.0
JPEG_MEGAPIXELS = 1000.0  # what the default means for a JPEG that is decoded in reduced size
LARGE_JPEG_MEGAPIXELS = 356.0  # and for one of which all has to be held: progressive, or not reduced
MAX_FILE_BYTES = 2 << 30

Crop = Callable[[int, int], pixels.Box]
"""Width and height of the upright picture → the part of it to be seen; the same answer for the same picture."""

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
        taken: when, by its EXIF block: ISO 8601, local time unless it names a zone; "" where it does not say.
        look: perceptual hash of the whole picture, 64 hex digits; see `phash.look`.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    taken: str = ""
    look: str = ""


def load_pixels(
    source: str | bytes, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS, crop: Crop | None = None
) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        source: a path (str; CONTAINER::MEMBER for an image inside a tar, TSV or LMDB) or the content of a file (bytes).
        spec: what the pixels shall look like.
        max_megapixels: refuse larger images before decoding them.
        crop: the part of the picture that fills the square; None: what `spec.resize` says.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ImageError: the image cannot be read; see the reasons at the top of this module.
    """
    data = read_file(source) if isinstance(source, str) else source
    return decode(data, spec, max_megapixels=max_megapixels, crop=crop).pixels


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


def decode(
    data: bytes, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS, crop: Crop | None = None
) -> DecodedImage:
    """Decode the content of one image file: first frame, upright, in sRGB, greys by their depth, on an opaque ground.

    A file whose last bytes are missing is decoded if no pixel depends on them. With the default limit a JPEG may be
    larger than other pictures, because it is decoded in reduced size. Of a part (`crop`, as `load_pixels` takes it)
    there is no `look`.

    Raises:
        ImageError: the image cannot be read.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with codecs.quiet():
            return _decode(data, spec, max_megapixels, crop)
    except ImageError:
        raise
    except Exception as error:
        reason = codecs.as_image_error(error, data)
        if (whole := truncated.mended(data, reason, max_megapixels)) is None:
            raise reason from error
    try:
        with codecs.quiet():
            return _decode(whole, spec, max_megapixels, crop)
    except Exception:
        raise reason from None


def _decode(data: bytes, spec: PixelSpec, max_megapixels: float, crop: Crop | None) -> DecodedImage:
    image_module = codecs.pillow()
    with image_module.open(io.BytesIO(data), formats=codecs.openable(data)) as image:
        width, height = image.size
        _check_area(width, height, _limit(image, spec, max_megapixels))
        taken = exif.taken(image) if image.format == "TIFF" else ""
        colour.before_loading(image)
        if image.format in ("JPEG", "MPO") and spec.antialias:
            # libjpeg scales by 1/2, 1/4 or 1/8 while decoding, never below the size asked for: twice the target,
            # so that the resize below still decides what the pixels look like.
            enough = 2 * max(spec.size, spec.short_side)
            left, top, right, bottom = _part(image, (width, height), crop) or pixels.WHOLE
            image.draft(None, (round(enough / (right - left)), round(enough / (bottom - top))))
            image.load()
        else:
            image.load()
            width, height = image.size  # TIFF turns itself upright while loading
            _check_area(width, height, _limit(image, spec, max_megapixels))
        taken = taken or exif.taken(image)  # in a PNG the block may follow the pixels
        return _prepare(image, spec, (width, height), taken, crop)


def _limit(image: Image.Image, spec: PixelSpec, max_megapixels: float) -> float:
    """Megapixels that a picture may have; a limit other than the default holds for every format."""
    if image.format not in ("JPEG", "MPO") or max_megapixels != MAX_MEGAPIXELS:
        return max_megapixels
    reduced = spec.antialias and not image.info.get("progressive")
    return JPEG_MEGAPIXELS if reduced else LARGE_JPEG_MEGAPIXELS


def prepare(image: Image.Image, spec: PixelSpec, *, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedImage:
    """An image that Pillow has opened or made, treated as `decode` treats a file; a JPEG is decoded in full size.

    Raises:
        ImageError: the image cannot be read.
    """
    try:
        with codecs.quiet():
            _check_area(*image.size, max_megapixels)
            image.load()
            return _prepare(image, spec, image.size, "")
    except ImageError:
        raise
    except Exception as error:
        raise codecs.as_image_error(error, b"") from error


def _prepare(
    image: Image.Image, spec: PixelSpec, stored: tuple[int, int], taken: str, crop: Crop | None = None
) -> DecodedImage:
    """Loaded pixels → the tower's; `stored` is the size in the file, which `draft` may have divided and rounded."""
    upright = _UPRIGHT.get(_orientation(image))
    width, height = _turned(stored, upright)
    turn = codecs.pillow().Transpose[upright] if upright else None
    part = _part(image, stored, crop)
    ready = colour.smooth(image)
    square = pixels.to_square(ready, spec, stored, turn, part)
    if part is not None:
        return DecodedImage(square, width, height, taken)
    squashed = spec.resize == "squash" and spec.antialias and spec.size >= phash.LOOK_SIDE
    whole = square if squashed else pixels.to_square(ready, PixelSpec(phash.LOOK_SIDE), stored, turn)
    return DecodedImage(square, width, height, taken, phash.look(whole))


def _turned(stored: tuple[int, int], upright: str | None) -> tuple[int, int]:
    lies = upright and upright not in ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM")
    return stored[::-1] if lies else stored


def _part(image: Image.Image, stored: tuple[int, int], crop: Crop | None) -> pixels.Box | None:
    """What `crop` chooses, as shares of the picture as it lies in the file."""
    if crop is None:
        return None
    upright = _UPRIGHT.get(_orientation(image))
    width, height = _turned(stored, upright)
    left, top, right, bottom = crop(width, height)
    return pixels.as_stored((left / width, top / height, right / width, bottom / height), upright)


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
