"""What runs inside a decoding process: read, hash and decode a few files, pack the pixels into one buffer.

The process may be killed at any moment, by the pool or by a decoder that crashes; it owns nothing that outlives it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.images import MAX_FILE_BYTES, DecodedImage, PixelSpec, decode, read_file
from brivl_search.errors import ImageError

Decoder = Callable[..., DecodedImage]


@dataclass(frozen=True, slots=True)
class Job:
    """How to decode, the same for every file of a run.

    Attributes:
        spec: what the pixels shall look like.
        max_megapixels: limit on the area of an image.
        max_bytes: limit on the size of a file.
        alarm_s: the operating system ends the process after this long on one chunk, even if the parent is dead and
            the decoder hangs in C code; 0 for never.
        memory: bytes the process may take on top of what it starts with, where the system can limit that (Linux); a
            file that asks for more is out of memory, alone. 0 for no limit.
        decoder: called as decoder(data, spec, max_megapixels=...); importable by name, so that it can be sent.
    """

    spec: PixelSpec
    max_megapixels: float
    max_bytes: int = MAX_FILE_BYTES
    alarm_s: int = 0
    memory: int = 0
    decoder: Decoder = decode


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file; its pixels, if any, follow in the chunk's buffer."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    known: bool = False
    reason: str = ""
    detail: str = ""
    taken: str = ""
    look: str = ""


Task = tuple[str, tuple[str, ...], Place | None]
"""A path, the hashes of contents whose pixels are not needed, and the place of an image inside a container."""


def decode_chunk(tasks: Sequence[Task], job: Job) -> tuple[list[Outcome], bytearray]:
    """Decode some files.

    Returns:
        One outcome per task, and the uint8 (size, size, 3) pixels of those that were decoded, one after the other.
    """
    if job.memory:
        cap_memory(job.memory)
    if job.alarm_s and hasattr(signal, "alarm"):
        signal.alarm(job.alarm_s)
    outcomes: list[Outcome] = []
    pixels = bytearray()
    for path, known, place in tasks:
        outcome, image = decode_one(path, known, job, place)
        outcomes.append(outcome)
        if image is not None:
            pixels += image.pixels.data
    if job.alarm_s and hasattr(signal, "alarm"):
        signal.alarm(0)
    return outcomes, pixels


def decode_one(
    path: str, known: Collection[str], job: Job, place: Place | None = None
) -> tuple[Outcome, DecodedImage | None]:
    """Read a file once, hash and decode the same bytes. Never raises an error of the file's own making."""
    sha256 = ""
    try:
        data = read_file(path, max_bytes=job.max_bytes, place=place)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in known:
            return Outcome(sha256, known=True), None
        image = job.decoder(data, job.spec, max_megapixels=job.max_megapixels)
    except ImageError as error:
        return Outcome(sha256, reason=error.reason, detail=error.detail), None
    except MemoryError as error:
        return Outcome(sha256, reason="out of memory", detail=str(error)), None
    return Outcome(sha256, image.width, image.height, taken=image.taken, look=image.look), image


@functools.cache
def cap_memory(memory: int) -> None:
    """Let this process have so many bytes more than it has now. Systems that cannot do that do without."""
    with contextlib.suppress(ImportError, AttributeError, LookupError, ArithmeticError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_bytes().split()[5])  # data and stack
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = pages * resource.getpagesize() + memory
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def settle_in(nice: int = 15) -> None:
    """Prepare a fresh process: end at once when told to, keep to one thread, do not talk on the user's terminal.

    It also gives way by `nice`: a build decodes ahead of the encoder, so on few cores it should fill its gaps, not make
    some.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.nice(nice)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(ImportError):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    silence = os.open(os.devnull, os.O_WRONLY)  # C libraries print warnings about damaged files
    os.dup2(silence, 2)
    os.close(silence)
