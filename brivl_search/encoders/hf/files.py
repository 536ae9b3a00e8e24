"""The folder of a model, downloaded from the Hugging Face hub only if it is not on this disk; hashes of its files.

Everything goes through huggingface_hub, so HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN have their usual meaning.
A model in the cache is used as it is: without the network, and with the same vectors tomorrow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from brivl_search.encoders.digests import file_sha256
from brivl_search.encoders.hf.layout import CONFIG, WEIGHTS, weight_file
from brivl_search.encoders.immich import layout as immich
from brivl_search.encoders.settings import NONE, Settings, split
from brivl_search.errors import EncoderError, UsageError

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")
_OLD_ID = re.compile(r"[A-Za-z0-9][\w.-]*")
_BLOB = re.compile(r"[0-9a-f]{64}")

_SETTINGS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
_TOKENIZER = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
_WORDS = {"tokenizer.json", "vocab.txt", "vocab.json"}
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


@dataclass(frozen=True)
class FoundModel:
    """A model on this disk.

    Attributes:
        name: its name in an index: hf:ORG/NAME[@REVISION] or hf:/FOLDER, with its settings.
        folder: where its files are.
        settings: what its name says beside the model.
    """

    name: str
    folder: Path
    settings: Settings = NONE


def find_model(name: str) -> FoundModel:
    """Finds the model hf:`name` and downloads it if it is not on this disk. A folder wins over a name of the hub.

    Raises:
        EncoderError: the folder holds none, or it cannot be downloaded; the message says what to do.
        UsageError: no such folder and no name of the hub, no such model or revision there, or its name has settings
            that do not exist.
    """
    name, settings = split(name)
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):
        if not any((path / one).is_file() for one in ("config.json", "modules.json", CONFIG, *immich.TOWERS)):
            raise EncoderError(
                f"hf:{name} is not a model of transformers, open_clip or immich: the folder has no config.json, "
                f"{CONFIG} or {immich.VISUAL}"
            )
        return FoundModel(f"hf:{path.resolve()}{settings.suffix}", path, settings)
    hub = _HUB_ID.fullmatch(name)
    if hub is None or name.startswith("."):
        raise UsageError(f"no encoder hf:{name}: there is no such folder, and it is not of the form ORG/NAME")
    folder = cached(hub[1], hub[2]) or download(hub[1], hub[2], wanted)
    return FoundModel(f"hf:{name}{settings.suffix}", folder, settings)


def hub_name(name: str) -> str | None:
    """ORG/NAME, or NAME for models that the hub has without one, if `name` can be that; else None."""
    return name if _HUB_ID.fullmatch(name) or _OLD_ID.fullmatch(name) else None


def cached(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model in Hugging Face's cache on this disk; None unless it is complete."""
    from huggingface_hub import try_to_load_from_cache

    for probe in ("config.json", "modules.json", CONFIG):
        path = try_to_load_from_cache(repo, probe, revision=revision)
        if isinstance(path, str) and complete(Path(path).parent):
            return Path(path).parent
    return None


def complete(folder: Path) -> bool:
    """Whether a folder has settings, a tokenizer and all weights. After an interrupted download it lacks some."""
    if (folder / "modules.json").is_file():
        try:
            modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
            places = [folder / module.get("path", "") for module in modules]
            return all(place.is_dir() for place in places) and any(has_weights(place) for place in places)
        except (OSError, ValueError, AttributeError, TypeError):
            return False
    if immich.is_immich(folder):
        return immich.complete(folder)
    if (folder / CONFIG).is_file() and (weights := weight_file(folder)) is not None:
        typed = (folder / "config.json").is_file() and "model_type" in read_json(folder / "config.json")
        if weights.name.startswith("open_clip") or not typed:
            return True
    has_preprocessing = any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
    has_words = any(path.name in _WORDS or path.suffix == ".model" for path in tokenizer_files(folder))
    return (folder / "config.json").is_file() and has_preprocessing and has_words and has_weights(folder)


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights that transformers reads."""
    try:
        return bool(weight_files(folder))
    except EncoderError:
        return False


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights: one file, or the shards that its index lists.

    Raises:
        EncoderError: there are no weights, or a shard is missing.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted({str(shard) for shard in read_json(index).get("weight_map", {}).values()})
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing or not shards:
                raise EncoderError(f"{folder} is incomplete: it has no {missing[0] if missing else 'weights'}")
            return [folder / shard for shard in shards]
    raise EncoderError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin")


def tokenizer_files(folder: Path) -> list[Path]:
    """All files that a tokenizer may consist of, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and any(fnmatch(path.name, one) for one in _TOKENIZER)
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
        EncoderError: the file cannot be read, or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return values


def digest(paths: Iterable[Path], settings: Any) -> str:
    """SHA-256 over names and contents of files and over `settings`, which must be JSON-ready; hexadecimal."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        total.update(path.name.encode() + b"\0" + _content(path).encode())
    return total.hexdigest()


def _content(path: Path) -> str:
    """The SHA-256 of a file. In Hugging Face's cache, large files are named by it and need not be read."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and _BLOB.fullmatch(blob.name):
        return blob.name
    return file_sha256(path)


def wanted(files: Sequence[str]) -> list[str]:
    """The files of a hub repository that an encoder needs. Weights in several formats are taken once."""
    if set(immich.TOWERS) <= set(files):
        return _wanted_of_immich(files)
    sentence = "modules.json" in files
    if CONFIG in files and not sentence and not _for_transformers(files):
        return _wanted_by_open_clip(files)
    out = []
    for name in files:
        path = PurePosixPath(name)
        if len(path.parts) > 1 and (not sentence or path.parts[0] in ("onnx", "openvino", "assets")):
            continue
        beside = {other.name for other in map(PurePosixPath, files) if other.parent == path.parent}
        safe = any(_SAFETENSORS.fullmatch(other) for other in beside)
        if any(fnmatch(path.name, pattern) for pattern in _SETTINGS):
            keep = not (safe and path.name == "pytorch_model.bin.index.json")
        else:
            keep = bool((_SAFETENSORS if safe else _PICKLES).fullmatch(path.name))
        if keep:
            out.append(name)
    return out


def _for_transformers(files: Sequence[str]) -> bool:
    weights = any(_SAFETENSORS.fullmatch(name) or _PICKLES.fullmatch(name) for name in files)
    return weights and "config.json" in files and "preprocessor_config.json" in files


def _wanted_by_open_clip(files: Sequence[str]) -> list[str]:
    settings = [name for name in files if "/" not in name and any(fnmatch(name, one) for one in _SETTINGS)]
    return [*(name for name in settings if not name.endswith(".py")), *[name for name in WEIGHTS if name in files][:1]]


def _wanted_of_immich(files: Sequence[str]) -> list[str]:
    """Both towers with their weights and settings, in ONNX alone: other formats lie deeper or have other endings."""
    sides = {PurePosixPath(tower).parent for tower in immich.TOWERS}
    beside = [name for name in files if PurePosixPath(name).parent in sides]
    return [immich.CONFIG, *(name for name in beside if not name.endswith((".armnn", ".rknn", ".md")))]


def download(repo: str, revision: str | None, choose: Callable[[list[str]], list[str]], name: str = "") -> Path:
    """Downloads files of a model of the hub into its cache.

    Args:
        repo: ORG/NAME.
        revision: a branch, tag or commit; None: the main branch.
        choose: of the names of all its files those that are wanted.
        name: what needs it, for messages; "": hf:`repo`.

    Returns:
        The folder that they are in.

    Raises:
        UsageError: there is no such model or revision.
        EncoderError: it cannot be reached, or asks for its terms to be accepted; the message says what to do.
    """
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    where = constants.ENDPOINT
    try:
        # model_info asks once where list_repo_files would try for half a minute: no network is told at once
        siblings = HfApi().model_info(repo, revision=revision, timeout=20).siblings or []
        files = choose([one.rfilename for one in siblings])
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except errors.GatedRepoError:
        raise EncoderError(
            f"hf:{repo} asks for its terms to be accepted: do that at {where}/{repo} and set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"there is no model {repo} at {where}, or it is private: check the name, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{repo} has no revision {revision!r}: see {where}/{repo}/tree/main") from None
    except KeyboardInterrupt:
        raise
    except Exception as error:  # of whatever HTTP library is underneath
        offline = isinstance(error, errors.OfflineModeIsEnabled) or constants.is_offline_mode()
        reason = "HF_HUB_OFFLINE is set" if offline else (" ".join(str(error).split())[:160] or type(error).__name__)
        raise EncoderError(
            f"{name or 'hf:' + repo} is not on this disk and {where} cannot be reached ({reason}): "
            f"set HF_ENDPOINT to a mirror, or run `hf download {repo} --local-dir FOLDER` where there is a network, "
            "copy the folder, and use hf:FOLDER"
        ) from None
