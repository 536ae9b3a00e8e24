"""First weights: what a tower knows before this training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from brivl_search.encoders.brivl.checkpoint import TowerName, load_tower
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.official.convert import MOMENTUM
from brivl_search.encoders.brivl.text_tower import TextTower
from train.model.towers import TwoTowers


def load_cnns(tower: ImageTower, paths: list[Path]) -> None:
    """ImageNet weights by timm's key names; a classifier in the file is left out, anything else must fit."""
    from safetensors.torch import load_file

    if len(paths) != len(tower.backbones):
        raise SystemExit(f"init.cnn names {len(paths)} files for {len(tower.backbones)} backbones: give one each")
    backbones: list[Any] = list(tower.backbones)
    for backbone, path in zip(backbones, paths, strict=True):
        state = {k: v for k, v in load_file(str(path)).items() if not k.startswith("classifier.")}
        missing, unexpected = backbone.net.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise SystemExit(f"{path} does not fit {backbone.name}: missing {missing[:3]}, unknown {unexpected[:3]}")


def load_text_backbone(tower: TextTower, folder: Path) -> None:
    """The weights of a transformers folder; of a longer table of positions the tower has the start."""
    from transformers import AutoModel

    if not (folder / "config.json").is_file():
        raise SystemExit(f"init.text = {folder} holds no transformers model: brivl-mini's is made by train.mini.graft")
    given = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    wanted = tower.backbone.state_dict()
    state = {}
    for name, tensor in wanted.items():
        source = given.get(name)
        if source is not None and "position_embeddings" in name:
            source = source[: len(tensor)]
        if source is None or source.shape != tensor.shape:
            found = "nothing" if source is None else tuple(source.shape)
            raise SystemExit(f"{folder} does not fit model.text.backbone: {name} is {found}, not {tuple(tensor.shape)}")
        state[name] = source
    tower.backbone.load_state_dict(state)


def load_momentum(slow: TwoTowers, online: TwoTowers, folder: Path, towers: Sequence[TowerName]) -> bool:
    """Momentum towers go on where a conversion with `--keep-momentum` found them, not as copies of the online towers.

    What does not learn stays equal to the online towers, which the trainer counts on.

    Returns:
        Whether the folder keeps momentum copies.
    """
    if not (folder / MOMENTUM).is_file():
        return False
    for name in towers:
        load_tower(folder, name, slow.get_submodule(name), weights=MOMENTUM)
    with torch.no_grad():
        for copy, fast in zip(slow.parameters(), online.parameters(), strict=True):
            if not fast.requires_grad:
                copy.copy_(fast)
    return True
