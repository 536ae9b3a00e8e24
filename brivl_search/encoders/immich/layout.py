"""The files of a folder in immich's format."""

from __future__ import annotations

import re
from pathlib import Path

from brivl_search.errors import EncoderError

VISUAL, TEXTUAL = "visual/model.onnx", "textual/model.onnx"
TOWERS = (VISUAL, TEXTUAL)
CONFIG, PICTURES = "config.json", "visual/preprocess_cfg.json"
TOKENIZER, SPECIAL = "textual/tokenizer.json", "textual/tokenizer_config.json"
NEEDED = (*TOWERS, CONFIG, PICTURES, TOKENIZER, SPECIAL)
_PARTS = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")  # of a StringStringEntryProto: the key, the value's length
_MOST_OF_A_GRAPH = 64 << 20  # bytes; a larger file has its weights inside


def is_immich(folder: Path) -> bool:
    """Whether a folder has a tower in this format."""
    return any((folder / tower).is_file() for tower in TOWERS)


def complete(folder: Path) -> bool:
    """Whether all files are there. After an interrupted download some are not."""
    if not all((folder / name).is_file() for name in NEEDED):
        return False
    return all(part.is_file() for name in TOWERS for part in external(folder / name))


def external(model: Path) -> list[Path]:
    """The files that hold weights of an .onnx file which is too large for one file, whether they are there or not."""
    try:
        if model.stat().st_size > _MOST_OF_A_GRAPH:
            return []
        graph = model.read_bytes()
    except OSError as error:
        raise EncoderError(f"{model} cannot be read: {error.strerror}") from None
    names = {graph[found.end() : found.end() + found[1][0]] for found in _PARTS.finditer(graph)}
    return [model.parent / name.decode("utf-8", "replace") for name in sorted(names)]
