"""Encoder names → encoders: the bundled `brivl-mini`, a checkpoint folder, a model of the hub, a plug-in's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from brivl_search.encoders.base import Encoder
from brivl_search.encoders.brivl import BriVLEncoder, Precision
from brivl_search.errors import EncoderError, UsageError

DEFAULT = "brivl-mini"
BUNDLED = Path(__file__).resolve().parent.parent / "models"
_REGIONS = re.compile(r"(.*?)\+(boxes|detector)=(.*)", re.DOTALL)


def bundled() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())


def without_regions(name: str) -> str:
    """The name without what says where regions come from."""
    found = _REGIONS.fullmatch(name)
    return found[1] if found else name


def load_encoder(name: str = DEFAULT, *, device: str = "auto", precision: Precision = "auto") -> Encoder:
    """The encoder called `name`.

    brivl-mini: bundled; it wins over a folder of the same name, write ./NAME for that.
    FOLDER, or the .safetensors inside it: a checkpoint folder.
    official:FILE.pth: weights of the published BriVL code (`brivl_search.encoders.official`).

    Raises:
        EncoderError: there is no such encoder; the message lists the names that exist.
        UsageError: regions are asked for of an encoder that has none, or from a file that cannot be read.
    """
    found = _REGIONS.fullmatch(name)
    base, regions = (found[1], (found[2], found[3])) if found else (name, None)
    if base in bundled():
        return _brivl(FolderCheckpoint(BUNDLED / base), base, regions, device, precision)
    if base.startswith("official:"):
        from brivl_search.encoders.official import OfficialCheckpoint

        checkpoint = OfficialCheckpoint(base.removeprefix("official:"))
        return _brivl(checkpoint, checkpoint.name, regions, device, precision)
    path = Path(base).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        path = path.parent
    if path.is_dir():
        return _brivl(FolderCheckpoint(path), str(path.resolve()), regions, device, precision)
    if regions is not None:
        raise UsageError(f"{name}: {regions[0]} are for BriVL's encoders: {', '.join(bundled())}, a folder, official:PATH")
    known = ", ".join(bundled()) or "none"
    raise EncoderError(
        f"no encoder {name!r}: give a bundled name ({known}), the path of a checkpoint folder, or official:FILE.pth"
    )


def _brivl(
    checkpoint: Checkpoint, name: str, regions: tuple[str, str] | None, device: str, precision: Precision
) -> BriVLEncoder:
    boxes: BoxSource | None = None
    if regions is not None:
        kind, source = regions
        if not source:
            raise UsageError(f"{name}+{kind}=: say {'which file' if kind == 'boxes' else 'which detector'}")
        if kind == "boxes":
            boxes = BoxFile(Path(source).expanduser().absolute())
            name += f"+boxes={boxes.path}"
        else:
            from brivl_search.encoders.detector import Detector

            boxes = Detector(source, device=device, most=checkpoint.config.image.max_boxes)
            name += f"+detector={boxes.name}"
    return BriVLEncoder(checkpoint, name=name, device=device, precision=precision, boxes=boxes)
