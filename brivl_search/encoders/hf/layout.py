"""Folders in open_clip's format, which the hub has beside those of transformers: the names of their files."""

from __future__ import annotations

from pathlib import Path

CONFIG = "open_clip_config.json"
# The order in which open_clip looks for weights in a folder; after these, any other, safetensors first.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


def weight_file(folder: Path) -> Path | None:
    """The file that open_clip would read in a folder; None if there is none."""
    found = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth") and path.is_file()]
    known = [folder / name for name in WEIGHTS if folder / name in found]
    others = sorted(found, key=lambda path: (path.suffix != ".safetensors", path.name))
    return next(iter([*known, *others]), None)
