"""Calibrations that a user has measured, beside an encoder's own: one small file for each encoder fingerprint.

They lie in the user's data folder, so that `match` is there wherever the encoder is loaded, and go before an encoder's
own, which was measured on other pictures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import BrivlSearchError, EncoderError


def path_of(fingerprint: str) -> Path:
    """The file of an encoder: $XDG_DATA_HOME (or ~/.local/share)/brivl-search/calibrations/FINGERPRINT.json."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in fingerprint)
    return Path(base) / "brivl-search" / "calibrations" / f"{safe}.json"


def saved(fingerprint: str) -> Calibration | None:
    """The map that was kept for an encoder, None where there is none.

    Raises:
        EncoderError: there is one, and it cannot be read.
    """
    path = path_of(fingerprint)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Calibration.from_config(values)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, AttributeError, EncoderError) as error:
        raise EncoderError(f"{path} is no calibration ({error}): delete it") from None


def save(fingerprint: str, values: dict[str, float]) -> Path:
    """Keeps `fit_and_judge`'s findings; the file.

    Raises:
        BrivlSearchError: it cannot be written.
    """
    path = path_of(fingerprint)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise BrivlSearchError(f"{path} cannot be written: {error.strerror}: set XDG_DATA_HOME to a folder") from None
    return path


def forget(fingerprint: str) -> bool:
    """Removes the file; whether there was one."""
    path = path_of(fingerprint)
    if not path.is_file():
        return False
    path.unlink()
    return True
