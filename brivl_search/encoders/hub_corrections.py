"""The hub corrections that a user has measured (`models calibrate`): files beside the calibrations, by fingerprint.

Their references are vectors of texts, so they belong to the encoder. What they give for each row belongs to an index,
which keeps a copy of the references: it needs no file of this place.
"""

from __future__ import annotations

from pathlib import Path

from brivl_search.encoders import places
from brivl_search.errors import EncoderError
from brivl_search.metrics.hub_correction import DamagedCorrection, HubCorrection


def path_of(fingerprint: str) -> Path:
    """The user's file for an encoder: $XDG_DATA_HOME/brivl-search/calibrations/FINGERPRINT.hubs.safetensors."""
    return places.of_vectors(fingerprint, ".hubs.safetensors")


def saved(fingerprint: str) -> HubCorrection | None:
    """The user's correction of an encoder; None if there is none.

    Raises:
        EncoderError: the file cannot be read.
    """
    path = path_of(fingerprint)
    try:
        return HubCorrection.from_bytes(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, DamagedCorrection) as error:
        raise EncoderError(f"{path} is no hub correction ({error}): delete it") from None


def save(fingerprint: str, correction: HubCorrection) -> Path:
    """Writes the user's file for an encoder and returns its path.

    Raises:
        BrivlSearchError: the file cannot be written.
    """
    return places.write(path_of(fingerprint), correction.to_bytes())


def forget(fingerprint: str) -> bool:
    """Deletes the user's file for an encoder. False if there was none."""
    return places.forget(path_of(fingerprint))
