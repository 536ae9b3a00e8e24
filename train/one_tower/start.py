"""First weights of a matcher: a text tower's layers, and the image tower's projection of the regions."""

from __future__ import annotations

from torch import nn

from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.from_bert import copy_first
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import EncoderError


def from_towers(model: OneTower, text: TextTower, image: ImageTower) -> None:
    """Fills a matcher with what the two towers know. BERT's first layers become text layers, the next joint ones.

    What the towers have no weights for stays random: places, the heads, and joint layers beyond BERT's last.

    Raises:
        EncoderError: the sizes differ, or the text tower is no BERT.
    """
    if model.config.region_size != image.project.in_features:
        raise EncoderError(
            f"matcher.region_size = {model.config.region_size}: the towers have {image.project.in_features}"
        )
    copy_first(model, text, len(model.text_layers) + len(model.joint_layers))
    if image.project.out_features == model.config.width:
        model.feature.load_state_dict(image.project.state_dict())


def known(model: OneTower, layers: int) -> set[str]:
    """Names of the parameters that `from_towers` fills from a text tower of so many layers."""
    found = {"words.weight", "positions.weight", "text_norm.weight", "text_norm.bias"}
    every = [f"text_layers.{i}." for i in range(len(model.text_layers))]
    every += [f"joint_layers.{i}." for i in range(len(model.joint_layers))]
    return found | {name for name, _ in model.named_parameters() if name.startswith(tuple(every[:layers]))}


def freeze(model: OneTower, text_layers: int) -> None:
    """Freezes the embeddings of words and types and the first text layers; 0: nothing.

    Raises:
        EncoderError: the matcher has fewer text layers.
    """
    if text_layers > len(model.text_layers):
        raise EncoderError(
            f"train.frozen_text_layers = {text_layers}: the matcher has {len(model.text_layers)} text layers"
        )
    if text_layers:
        frozen: list[nn.Module] = [model.words, model.positions, model.types, model.text_norm]
        frozen += list(model.text_layers)[:text_layers]
        for module in frozen:
            module.requires_grad_(False)
