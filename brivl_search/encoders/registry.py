"""Encoder names → encoders: the bundled `brivl-mini`, or a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

from brivl_search.encoders.base import Encoder
from brivl_search.encoders.brivl import BriVLEncoder, Precision
from brivl_search.errors import EncoderError

DEFAULT = "brivl-mini"
BUNDLED = Path(__file__).resolve().parent.parent / "models"


def bundled() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())


def load_encoder(name: str = DEFAULT, *, device: str = "auto", precision: Precision = "auto") -> Encoder:
    """The encoder called `name`: a bundled name, or the path of a checkpoint folder or of the weights inside it.

    A bundled name wins over a folder of the same name; write ./NAME for the folder.

    Raises:
        EncoderError: there is no such encoder; the message lists the names that exist.
    """
    if name in bundled():
        return BriVLEncoder(BUNDLED / name, name=name, device=device, precision=precision)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        path = path.parent
    if path.is_dir():
        return BriVLEncoder(path, name=str(path.resolve()), device=device, precision=precision)
    known = ", ".join(bundled()) or "none"
    raise EncoderError(f"no encoder {name!r}: give a bundled name ({known}) or the path of a checkpoint folder")
