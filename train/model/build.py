"""A recipe's model: towers of its sizes, what is frozen, the weights it starts from, its loss and its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from train.model.depth import depths
from train.model.moco import Clip, Contrastive, MoCo, SigLip
from train.model.sizes import open_checkpoint
from train.model.start import load_cnns, load_text_backbone
from train.model.towers import SentenceCache, TwoTowers
from train.recipe import Init, Training

Group = dict[str, Any]


def freeze_text(text: TextTower, layers: int) -> None:
    """Freezes the embeddings and the first `layers` layers of the text backbone; 0: nothing."""
    if layers:
        if not hasattr(text.backbone, "embeddings") or not hasattr(text.backbone, "encoder"):
            raise SystemExit("train.frozen_text_layers needs a text backbone of BERT's shape: leave it out")
        for module in (text.backbone.embeddings, *text.backbone.encoder.layer[:layers]):
            module.requires_grad_(False)


def only_its_mlp_learns(text: TextTower) -> bool:
    """Whether a text's vector before the MLP is always the same: nothing there is trained or dropped."""
    drops = [m.p for m in text.backbone.modules() if isinstance(m, nn.Dropout)]
    drops.append(getattr(text.backbone.config, "attention_probs_dropout_prob", 0.0))
    frozen = not any(p.requires_grad for p in text.backbone.parameters())
    return frozen and not any(drops) and text.head.attention is None


def parameter_groups(towers: TwoTowers, cfg: Training) -> list[dict[str, Any]]:
    """AdamW groups: CNN and text backbone at their own rates, lower layers at lower ones (`layer_decay`); no weight
    decay on biases, norms and embeddings."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    found = {side: depths(towers.get_submodule(side)) for side in ("image", "text")} if cfg.layer_decay < 1 else {}
    for name, parameter in towers.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = cfg.lr
        if found:
            side, _, inner = name.partition(".")
            rate *= cfg.layer_decay ** found[side].above(inner)
        if name.startswith("image.backbones"):
            rate *= cfg.cnn_lr_factor
        elif name.startswith("text."):
            rate *= cfg.text_lr_factor
        decay = cfg.weight_decay if parameter.ndim > 1 and "embeddings" not in name else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": lr, "base_lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()]


def build_towers(config: ModelConfig, cfg: Training) -> TwoTowers:
    """Both towers with random weights; what the `[train]` table freezes is frozen."""
    image, text = ImageTower(config.image, config.dim), TextTower(config.text, config.dim)
    freeze_text(text, cfg.frozen_text_layers)
    for module in image.frozen_modules(cfg.frozen) if cfg.frozen else []:
        module.requires_grad_(False)
    for backbone in image.cnns():
        for name in cfg.frozen_cnn_modules:
            backbone.net.get_submodule(name).requires_grad_(False)
    towers = {"image": image, "text": text}
    for name in cfg.frozen_towers:
        towers[name].requires_grad_(False)
    whole = "text" in cfg.frozen_towers
    sentences = SentenceCache(whole=whole) if whole or only_its_mlp_learns(text) else None
    return TwoTowers(
        image,
        text,
        cached_blocks=cfg.cached_blocks,
        frozen_blocks=cfg.frozen,
        text_chunks=4,
        sentences=sentences,
        frozen=cfg.frozen_towers,
    )


def objective(towers: TwoTowers, dim: int, cfg: Training) -> Contrastive:
    """The loss that `train.loss` names, over the towers and their slow copies."""
    common: dict[str, Any] = {
        "momentum": cfg.momentum,
        "temperature": cfg.temperature,
        "learned_temperature": cfg.learned_temperature,
    }
    if cfg.loss == "clip":
        return Clip(towers, **common)
    if cfg.loss == "siglip":
        return SigLip(towers, bias=cfg.bias, **common)
    return MoCo(
        towers,
        dim,
        queue_size=cfg.queue_size,
        in_batch_negatives=cfg.in_batch_negatives,
        text_weight=cfg.text_weight,
        **common,
    )


def start_from(init: Init, base: Path, towers: TwoTowers) -> None:
    """Fills the towers with the weights that `[init]` names; paths are relative to `base`.

    Raises:
        EncoderError: they cannot be read, or do not fit.
    """
    if init.cnn is not None:
        load_cnns(towers.image, [(base / name).resolve() for name in init.cnn])
    if init.text is not None:
        load_text_backbone(towers.text, (base / init.text).resolve())
    if init.brivl is not None:
        checkpoint = open_checkpoint(init.brivl, base)
        for name in init.towers:
            checkpoint.fill(name, towers.get_submodule(name))


def optimizer_of(model: Contrastive, towers: TwoTowers, cfg: Training, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over all that learns."""
    groups = parameter_groups(towers, cfg)
    if scalars := model.scalars():
        groups.append({"params": scalars, "lr": cfg.lr, "base_lr": cfg.lr, "weight_decay": 0.0})
    if model.captions is not None:
        groups += rates(model.captions, cfg.lr, cfg.weight_decay)
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device.type in ("cpu", "cuda"))


def rates(model: nn.Module, lr: float, decay: float, slower: Callable[[str], float] = lambda name: 1.0) -> list[Group]:
    """AdamW groups of a model beside the towers; no decay on biases and norms.

    Args:
        model: what learns of it.
        lr: of its parameters.
        decay: of its matrices.
        slower: name of a parameter → its share of the rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = lr * slower(name)
            groups.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": ps, "weight_decay": wd, "lr": rate, "base_lr": rate} for (rate, wd), ps in groups.items()]


def save_memory(towers: TwoTowers) -> None:
    """Activations are computed again in the backward pass (`train.gradient_checkpointing`)."""
    towers.text.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for backbone in towers.image.cnns():
        backbone.net.set_grad_checkpointing(True)
