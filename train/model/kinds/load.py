"""The architecture that a recipe trains."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from brivl_search.encoders.hf.encoder import TransformersEncoder
from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
from brivl_search.encoders.registry import load_encoder
from brivl_search.errors import UsageError
from train.data.photos import mask_id
from train.model.kinds.base import Kind
from train.model.kinds.brivl import BrivlKind
from train.recipe import Recipe


def load_kind(recipe: Recipe, base: Path, device: torch.device) -> Kind:
    """Towers, words and pictures of what `[init]` names, on a device.

    Args:
        recipe: whose.
        base: the folder that its paths are relative to.
        device: for the towers.

    Raises:
        EncoderError: there is no such model, or it cannot be read.
        DependencyError: it needs a package that is not installed.
        UsageError: the recipe asks of the model what it does not have.
    """
    kind = _of(recipe, base, device)
    mask_id(kind.tokenizer, recipe.train.token_dropout)
    kind.towers.to(device)
    return kind


def _of(recipe: Recipe, base: Path, device: torch.device) -> Kind:
    name = recipe.init.foreign
    if name is None:
        return BrivlKind(recipe, base)
    if "?" in name:
        raise UsageError(f"init.encoder = {name!r}: leave out what follows the ?, whole vectors are trained")
    if "+precision=" in name:
        raise UsageError(f"init.encoder = {name!r}: leave out what follows the +, weights are trained in float32")
    # An export that lies in the cache would bring a tokenizer of its own, and no weights.
    encoder = load_encoder(_from_recipe(name, base), device=str(device), precision="fp32", runtime="torch")
    if isinstance(encoder, TransformersEncoder):
        from train.model.kinds.hf import HfKind

        return HfKind(encoder, recipe.train)
    if isinstance(encoder, OpenClipEncoder):
        from train.model.kinds.open_clip import OpenClipKind

        return OpenClipKind(encoder, recipe.train)
    raise UsageError(
        f"init.encoder = {name!r} is a model of sentence-transformers, which has its own trainer: give a two-tower "
        "model of transformers (CLIP, Chinese-CLIP, SigLIP, …) or of open_clip"
    )


def _from_recipe(name: str, base: Path) -> str:
    """A name with its folder relative to the recipe, where there is such a folder."""
    kind, _, rest = name.partition(":")
    folder = base / os.path.expanduser(rest)
    return f"{kind}:{folder.resolve()}" if rest and os.path.isdir(folder) else name
