"""Where what is kept about encoders lies: files of the user's data and cache folders, by fingerprint."""

from __future__ import annotations

import os
from pathlib import Path

from brivl_search.corpus.atomic import appearing
from brivl_search.errors import BrivlSearchError


def data_folder() -> Path:
    """$XDG_DATA_HOME/brivl-search; XDG_DATA_HOME is ~/.local/share where it is not set."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path(os.path.expanduser("~"), ".local", "share")) / "brivl-search"


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/brivl-search; XDG_CACHE_HOME is ~/.cache where it is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")) / "brivl-search"


def file_name(fingerprint: str) -> str:
    """A fingerprint as a part of a file's name."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in fingerprint)


def of_vectors(fingerprint: str, ending: str) -> Path:
    """The file of what a user has measured of an encoder's vectors: calibrations/FINGERPRINT + ending in `data_folder`.

    One rule for all of it: it counts for vectors of exactly this fingerprint. Those of the same encoder in another
    runtime have it too, as long as they agree to a cosine of 0.999 (`runtimes.choice.SAFE`). Beyond that they have a
    fingerprint of their own (NAME+precision=int8), other cosines, and need a measurement of their own.
    """
    return data_folder() / "calibrations" / f"{file_name(fingerprint)}{ending}"


def write(path: Path, content: bytes) -> Path:
    """Writes a file of the data folder, whole or not at all, and returns its path.

    Raises:
        BrivlSearchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as (temporary,):
            temporary.write_bytes(content)
    except OSError as error:
        raise BrivlSearchError(f"{path} cannot be written: {error.strerror}: set XDG_DATA_HOME to a folder") from None
    return path


def forget(path: Path) -> bool:
    """Deletes a file. False if there was none."""
    if not path.is_file():
        return False
    path.unlink()
    return True
