"""open_clip's built-in models: NAME/PRETRAINED → config and weights.

Its table is in a package that imports torch, so what it said is remembered.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from brivl_search.encoders.hf.files import download
from brivl_search.encoders.hf.layout import WEIGHTS
from brivl_search.encoders.open_clip import remembered
from brivl_search.encoders.open_clip.config import describe
from brivl_search.encoders.open_clip.files import OpenClipModel, parts_of
from brivl_search.encoders.open_clip.remembered import Named
from brivl_search.errors import EncoderError, UsageError


def find_named(name: str, suffix: str, truncate_dim: int | None) -> OpenClipModel:
    """The model open_clip:`name`; its weights are downloaded as open_clip does it, if they are not on this disk.

    Args:
        name: NAME/PRETRAINED. NAME may have a slash for its hyphen, as in ViT-B/32/openai.
        suffix: what follows it in the encoder's name: its settings, or nothing.
        truncate_dim: how many dimensions of its vectors are kept; None: all.

    Raises:
        UsageError: there is no such name.
        EncoderError: its weights cannot be downloaded.
    """
    if name.startswith("hf-hub:"):
        raise UsageError(f"open_clip:{name}: write hf:{name.removeprefix('hf-hub:')}")
    before = remembered.read(name)
    known = before or _looked_up(name)
    full = f"open_clip:{known.model}/{known.tag}{suffix}"
    about = describe(f"open_clip's {known.model}", known.config, known.weights)
    file = Path(known.file) if known.file and Path(known.file).is_file() else _weights(full, known.weights)
    known = replace(known, file="" if known.weights.get("hf_hub") else str(file))  # the hub's cache is looked into
    if known != before:
        remembered.keep(name, known)
    tokenizer, text_tower = parts_of(full, about, None)
    return OpenClipModel(full, about, file, tokenizer, text_tower, truncate_dim)


def _looked_up(name: str) -> Named:
    """What open_clip knows of NAME/PRETRAINED; raises UsageError if it knows nothing."""
    import open_clip

    model, _, tag = name.rpartition("/")
    model = model.replace("/", "-")
    if open_clip.get_model_config(model) is None:
        whole = name.replace("/", "-")
        if open_clip.get_model_config(whole) is not None:
            tags = open_clip.list_pretrained_tags_by_model(whole)
            given = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "") or "none"
            raise UsageError(f"open_clip:{name} does not say which weights: add /PRETRAINED, one of: {given}")
        raise UsageError(_unknown(name, model or name))
    weights = open_clip.get_pretrained_cfg(model, tag)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(model)
        if not tags:
            raise UsageError(f"open_clip has no weights of {model}: give another model, or a folder with your own")
        near = difflib.get_close_matches(tag.lower().replace("-", "_"), tags, 3) or tags
        raise UsageError(f"open_clip has no weights {tag!r} of {model}: take {' or '.join(near)}")
    config: dict[str, Any] = open_clip.get_model_config(model)
    if weights.get("quick_gelu"):  # OpenAI's weights, say, whose activation the plain names of models do not have
        config["quick_gelu"] = True
    return Named(model, tag, config, dict(weights))


def _unknown(name: str, model: str) -> str:
    import open_clip

    pairs = ["/".join(pair) for pair in open_clip.list_pretrained()]
    folded = {pair.lower(): pair for pair in pairs}
    near = [folded[one] for one in difflib.get_close_matches(name.lower(), folded, 3, 0.5)]
    if not near:
        models = {pair.split("/")[0].lower(): pair for pair in reversed(pairs)}
        near = [models[one] for one in difflib.get_close_matches(model.lower(), models, 3, 0.4)]
    hint = f"the nearest: {', '.join(near)}" if near else "open_clip.list_pretrained() in Python lists them"
    return f"no encoder open_clip:{name}: there is no such folder, and open_clip has no such model: {hint}"


def _weights(name: str, about: dict[str, Any]) -> Path:
    """The file of built-in weights, where open_clip keeps it. What is in the hub's cache is used without the hub."""
    repo, _, file = str(about.get("hf_hub") or "").rpartition("/")
    if not repo:
        return _from_address(name, about)
    names = [file] if file else list(WEIGHTS[:3:2])
    names = [f"{Path(names[-1]).stem}.safetensors", *names]
    for one in names:
        path = try_to_load_from_cache(repo, one)
        if isinstance(path, str):
            return Path(path)

    def choose(files: list[str]) -> list[str]:
        return [one for one in names if one in files][:1]

    try:
        folder = download(repo, None, choose, name)
    except UsageError as error:  # the name is right, and what it stands for is gone
        raise EncoderError(f"{name} cannot be loaded: {error}") from None
    found = [folder / one for one in names if (folder / one).is_file()]
    if not found:
        raise EncoderError(f"{name} cannot be loaded: {repo} has no {names[-1]} on the hub any more")
    return found[0]


def _from_address(name: str, about: dict[str, Any]) -> Path:
    import open_clip

    try:
        return Path(open_clip.download_pretrained(about))
    except Exception as error:  # of urllib, or that the checksum is wrong
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise EncoderError(f"{name} cannot be downloaded from {about.get('url')}: {reason}") from None
