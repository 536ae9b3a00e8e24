"""First weights of a captioner: the text tower's words and layers, and the image tower's projection of the regions."""

from __future__ import annotations

import torch

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.from_bert import copy_embeddings, copy_layers
from brivl_search.errors import EncoderError
from train.captions.recipe import CaptionRecipe


def begin(recipe: CaptionRecipe, encoder: BriVLEncoder, kept: list[int]) -> Captioner:
    """The captioner at the recipe's start.

    Args:
        recipe: its sizes; what it leaves out is the text tower's.
        encoder: the two towers.
        kept: the tokenizer's id of each word.

    Raises:
        EncoderError: its sizes are wrong, or do not fit the towers.
    """
    theirs = encoder.config.text.backbone
    inherits = {
        "width": theirs.get("hidden_size", 768), "heads": theirs.get("num_attention_heads", 12),
        "feedforward": theirs.get("intermediate_size", 3072),
    }  # fmt: skip
    given = {
        "words": len(kept), "tokenizer_size": encoder.tokenizer.size,
        "region_size": encoder.image_tower.project.in_features, "vector_size": encoder.dim,
        "regions": encoder.regions_fingerprint, "vectors": encoder.vectors_fingerprint,
    }  # fmt: skip
    if wrong := [name for name in given if name in recipe.captioner]:
        raise EncoderError(f"captioner.{wrong[0]} is given by the towers and the captions: leave it out")
    config = CaptionConfig.from_dict({"kind": CaptionConfig.KIND, **inherits, **recipe.captioner, **given})
    if config.width != inherits["width"]:
        raise EncoderError(
            f"captioner.width = {config.width}: the text tower's words, which it begins with, have {inherits['width']}"
        )
    model = Captioner(config)
    model.kept.copy_(torch.tensor(kept))
    copy_embeddings(model, encoder.text_tower, model.kept)
    first = encoder.text_tower.backbone.get_input_embeddings().weight[encoder.tokenizer.start_id]
    model.starts.weight.data.add_(first.detach())
    if _takes_layers(recipe, config, inherits):
        copy_layers(list(model.layers), encoder.text_tower)
    project = encoder.image_tower.project
    if project.out_features == config.width:
        model.feature.load_state_dict(project.state_dict())
    return model


def known(model: Captioner, recipe: CaptionRecipe, encoder: BriVLEncoder) -> set[str]:
    """Names of the parameters that come from the text tower."""
    found = {"words.weight", "positions.weight", "text_norm.weight", "text_norm.bias"}
    theirs = encoder.config.text.backbone
    sizes = {"heads": theirs.get("num_attention_heads", 12), "feedforward": theirs.get("intermediate_size", 3072)}
    if _takes_layers(recipe, model.config, sizes):
        depth = int(encoder.text_tower.backbone.config.num_hidden_layers)
        of = tuple(f"layers.{number}." for number in range(min(depth, len(model.layers))))
        found |= {name for name, _ in model.named_parameters() if name.startswith(of) and ".across_" not in name}
    return found


def _takes_layers(recipe: CaptionRecipe, config: CaptionConfig, theirs: dict[str, int]) -> bool:
    return recipe.train.text_layers and all(getattr(config, name) == theirs[name] for name in ("heads", "feedforward"))
