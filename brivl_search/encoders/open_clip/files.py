"""A model's files: its config, its weights, its tokenizer, and the config of a text tower of transformers.

open_clip takes a text tower's config and many tokenizers from the hub, by a name in the model's config. Here they are
taken from the model's own folder where they lie there, else from the hub's cache, else from the hub.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brivl_search.encoders.hf.files import digest, download, hub_name, read_json, tokenizer_files
from brivl_search.encoders.hf.layout import WEIGHTS, weight_file
from brivl_search.encoders.open_clip.config import TEXT_TOWERS, Description, read_description
from brivl_search.errors import EncoderError, UsageError

_TEXT_TOWER_KEYS = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures", "auto_map")


@dataclass(frozen=True)
class OpenClipModel:
    """A model on this disk.

    Attributes:
        name: its name in an index.
        about: what its config says.
        weights: the file of its weights.
        tokenizer: the folder of its tokenizer; None: open_clip's built-in one.
        text_tower: config of a text tower of transformers; None: the tower is open_clip's own.
        truncate_dim: how many dimensions of its vectors are kept; None: all.
    """

    name: str
    about: Description
    weights: Path
    tokenizer: Path | None = None
    text_tower: Path | None = None
    truncate_dim: int | None = None

    def fingerprint(self, dim: int) -> str:
        """The SHA-256 of all that decides a vector, shortened."""
        files = [self.weights, *(tokenizer_files(self.tokenizer) if self.tokenizer else [])]
        settings: dict[str, Any] = {**self.about.settings, "dim": dim}
        if self.text_tower is not None:
            tower = read_json(self.text_tower)
            settings["text_tower"] = {key: value for key, value in tower.items() if key not in _TEXT_TOWER_KEYS}
        return "oc-" + digest(files, settings)[:24]


def in_folder(name: str, folder: Path, truncate_dim: int | None = None) -> OpenClipModel:
    """The model in a folder with open_clip_config.json.

    Raises:
        EncoderError: a file is missing or damaged.
    """
    about = read_description(folder)
    weights = weight_file(folder)
    if weights is None:
        raise EncoderError(f"{folder} has no weights: no {WEIGHTS[0]}, {WEIGHTS[2]} or the like")
    tokenizer, text_tower = parts_of(name, about, folder)
    return OpenClipModel(name, about, weights, tokenizer, text_tower, truncate_dim)


def parts_of(name: str, about: Description, folder: Path | None) -> tuple[Path | None, Path | None]:
    """The folder of a model's tokenizer, and the config of its text tower; None for what it does not have.

    Raises:
        EncoderError: they are neither here nor to be had.
    """
    text = about.text
    tokenizer, text_tower = None, None
    if wanted := text.get("hf_tokenizer_name"):
        if folder is not None and _has_tokenizer(folder):
            tokenizer = folder
        else:
            tokenizer = _part(name, folder, str(wanted), "tokenizer")
    if wanted := text.get("hf_model_name"):
        own = folder / "config.json" if folder is not None else None
        if own is None or not own.is_file() or read_json(own).get("model_type") not in TEXT_TOWERS:
            own = _part(name, folder, str(wanted), "text tower") / "config.json"
        kind = read_json(own).get("model_type")
        if kind not in TEXT_TOWERS:
            raise EncoderError(f"the text tower of {name} is of type {kind!r}; known are {', '.join(TEXT_TOWERS)}")
        text_tower = own
    return tokenizer, text_tower


def _has_tokenizer(folder: Path) -> bool:
    """Whether there are words, not only settings."""
    names = {path.name for path in tokenizer_files(folder)}
    return bool({"tokenizer.json", "vocab.txt", "vocab.json"} & names) or any(one.endswith(".model") for one in names)


def _part(name: str, folder: Path | None, wanted: str, what: str) -> Path:
    """The folder of a model's tokenizer or of its text tower's config; `wanted` is a folder or a name of the hub."""
    for path in ([folder / wanted] if folder is not None else []) + [Path(wanted).expanduser()]:
        if path.is_dir() and ((path / "config.json").is_file() if what == "text tower" else _has_tokenizer(path)):
            return path
    repo = hub_name(wanted)
    if repo is None:
        raise EncoderError(f"{name} takes its {what} from {wanted!r}, which is no folder and no model of the hub")
    if (found := _cached(repo, what)) is not None:
        return found
    try:
        return download(repo, None, _texts_only if what == "tokenizer" else _config_only)
    except (EncoderError, UsageError) as error:
        files = "config.json" if what == "text tower" else "the tokenizer's files"
        raise EncoderError(
            f"{name} takes its {what} from {repo}, which is not on this disk ({_short(error)}): put {files} of {repo} "
            f"into {folder or 'the cache, by `hf download ' + repo + '`'}"
        ) from None


def _cached(repo: str, what: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    words = ("tokenizer.json", "sentencepiece.bpe.model", "vocab.txt", "spiece.model", "vocab.json")
    for probe in words if what == "tokenizer" else ("config.json",):
        path = try_to_load_from_cache(repo, probe)
        if isinstance(path, str):
            return Path(path).parent
    return None


def _texts_only(files: list[str]) -> list[str]:
    kept = (".json", ".txt", ".model")
    return [one for one in files if "/" not in one and os.path.splitext(one)[1] in kept and ".index." not in one]


def _config_only(files: list[str]) -> list[str]:
    return [one for one in files if one == "config.json"]


def _short(error: EncoderError | UsageError) -> str:
    return str(error).split(": set HF_ENDPOINT")[0][:200]
