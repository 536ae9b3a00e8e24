"""What runs inside a server's decoding process: one picture for one request.

It lies here and not beside the server's pool, because a new process imports the package of what it runs: from there it
would load the whole server, for five times as long and as much memory.
"""

from __future__ import annotations

import hashlib

from brivl_search.corpus.decode_worker import Decoder, cap_memory
from brivl_search.corpus.images import PixelSpec, read_file
from brivl_search.corpus.thumbnails import shrink
from brivl_search.errors import ImageError


class ChangedError(ImageError):
    """A file is not what was indexed."""


def nothing() -> None:
    """For a process that shall start."""


def decode_content(
    decoder: Decoder, data: bytes, spec: PixelSpec, max_megapixels: float, memory: int
) -> tuple[bytes, int, int, str]:
    """The content of a file → pixels, width, height and hash. Raises ImageError."""
    cap_memory(memory)
    image = decoder(data, spec, max_megapixels=max_megapixels)
    return image.pixels.tobytes(), image.width, image.height, hashlib.sha256(data).hexdigest()


def indexed_thumbnail(path: str, side: int, sha256: str | None, max_bytes: int, memory: int) -> bytes:
    """A JPEG of an indexed file. Raises as `read_indexed`."""
    cap_memory(memory)
    return shrink(read_indexed(path, sha256, max_bytes), side)


def read_indexed(path: str, sha256: str | None, max_bytes: int) -> bytes:
    """The content of a file if it is what was indexed: so no link, and no file that took its place, shows another.

    Raises:
        ChangedError: it is something else now, or it was indexed without its content.
        ImageError: it cannot be read.
    """
    if sha256 is None:
        raise ChangedError("not shown", "it was imported as a vector, so its content was never seen")
    data = read_file(path, max_bytes=max_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ChangedError("file changed", "it is not what was indexed: run brivl-search sync")
    return data
