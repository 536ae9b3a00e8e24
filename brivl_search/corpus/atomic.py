"""A file or a folder that appears whole: written under another name beside its place, then renamed.

    with appearing(path) as (temporary,):
        temporary.write_text("...")

A reader sees the old file or the new one, never half of one. Nothing is synced to the disk unless it is asked for:
after a power cut the old file, or an empty one, may be there.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def appearing(*paths: Path, sync: bool = False, shared: bool = False) -> Iterator[tuple[Path, ...]]:
    """Temporary names beside `paths`; what is written under them takes its place in order when the `with` ends well.

    After an error the temporary files are removed, and what stood at `paths` stays.

    Args:
        paths: files or folders.
        sync: files are written through to the disk before they get their names.
        shared: other hosts write to the folder too, so that a process number says nothing alone.

    Raises:
        OSError: a name cannot take its place.
    """
    writer = f"{socket.gethostname()}.{os.getpid()}" if shared else f"{os.getpid()}"
    temporary = tuple(path.with_name(f".{path.name}.{writer}.tmp") for path in paths)
    try:
        yield temporary
        for new, path in zip(temporary, paths, strict=True):
            if sync:
                with new.open("rb+") as written:
                    os.fsync(written.fileno())
            os.replace(new, path)
    finally:
        for new in temporary:
            if os.path.isdir(new):
                shutil.rmtree(new, ignore_errors=True)
            else:
                with suppress(OSError):  # not there; or no such name can be: then that error goes on, not this one
                    new.unlink()
