"""`open_clip:NAME/PRETRAINED`, `open_clip:FOLDER`, and `hf:` models with open_clip_config.json: encoders of open_clip.

names       built-in names and their weights
remembered  what open_clip said of those, for the next time
files       finds a model's files: config, weights, tokenizer, what describes its text tower
config      reads open_clip_config.json: pixels, text length, what decides a vector
towers      builds a model and keeps one of its towers
tokens      open_clip's own tokenizers
language    the language token of NLLB's tokenizer, by the script of a text
encoder     the encoder over all that
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from brivl_search.encoders.settings import only_dim, split
from brivl_search.errors import DependencyError, install_hint

if TYPE_CHECKING:
    from brivl_search.encoders.base import LoadedEncoder, Precision
    from brivl_search.encoders.hf.files import FoundModel

__all__ = ["load_found", "load_open_clip"]


def load_open_clip(name: str, *, device: str = "auto", precision: Precision = "auto") -> LoadedEncoder:
    """Loads open_clip:`name`: a folder, or NAME/PRETRAINED. `?dim=N` at its end keeps N dimensions.

    Raises:
        DependencyError: open_clip is not installed.
        EncoderError: the model cannot be downloaded, is damaged, or cannot be cut to N dimensions.
        UsageError: there is no such model, or its name has settings that it does not have.
    """
    _check_installed(f"open_clip:{name}")
    bare, settings = split(name)
    only_dim(f"open_clip:{bare}", settings)
    from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
    from brivl_search.encoders.open_clip.files import in_folder

    path = Path(os.path.expanduser(bare))
    if bare and os.path.isdir(path):
        model = in_folder(f"open_clip:{path.resolve()}{settings.suffix}", path, settings.dim)
    else:
        from brivl_search.encoders.open_clip.names import find_named

        model = find_named(bare, settings.suffix, settings.dim)
    return OpenClipEncoder(model, device=device, precision=precision)


def load_found(found: FoundModel, *, device: str = "auto", precision: Precision = "auto") -> LoadedEncoder:
    """Loads an hf: model whose folder has open_clip_config.json.

    Raises:
        DependencyError: open_clip is not installed.
        EncoderError: the model is damaged, or cannot be cut.
        UsageError: its name asks for prompts.
    """
    _check_installed(found.name)
    only_dim(found.name, found.settings)
    from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
    from brivl_search.encoders.open_clip.files import in_folder

    model = in_folder(found.name, found.folder, found.settings.dim)
    return OpenClipEncoder(model, device=device, precision=precision)


def _check_installed(name: str) -> None:
    if find_spec("open_clip") is None:
        raise DependencyError(f"{name} needs open_clip: {install_hint('open-clip')}")
