"""Where in a tower a parameter stands: in the stem, in one of the layers, or behind them.

Towers of transformers, open_clip and timm name their parts differently, so the layers are found by their shape: the
largest list of modules of one class, or `layer1` to `layer4` of a ResNet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from brivl_search.encoders.brivl.image_tower import ImageTower

# Of what is in no layer: heads and pools, which hold embeddings of their own; then what comes before the layers.
_HEADS = re.compile(r"(^|\.)(attn_?pool|head|pooler)")
_STEM = re.compile(r"embed|patch|stem|(^|\.)(conv[123]|bn[123])\.|cls_|pos_|ln_pre|pre_?layr?norm|norm_pre")


@dataclass(frozen=True)
class Depths:
    """A tower cut into stem, layers, and what follows.

    Attributes:
        layers: from the first to the last.
        place: name of a parameter → 0: stem; 1 … n: a layer; n + 1: behind them.
    """

    layers: Sequence[nn.Module]
    place: dict[str, int]

    def above(self, name: str) -> int:
        """How many layers, and what is behind them, stand above a parameter."""
        return len(self.layers) + 1 - self.place[name]


def depths(tower: nn.Module) -> Depths:
    """Where each parameter of a tower stands. A tower without layers is all stem and end."""
    if isinstance(tower, ImageTower):
        return _of_cnns(tower)
    prefix, layers = _stack(tower)
    of = {f"{prefix}{name}.": number for number, (name, _) in enumerate(layers, 1)}
    place = {}
    for name, _ in tower.named_parameters():
        inside = next((number for start, number in of.items() if name.startswith(start)), None)
        behind = _HEADS.search(name) or not _STEM.search(name)
        place[name] = inside if inside is not None else len(layers) + 1 if behind else 0
    return Depths([layer for _, layer in layers], place)


def _of_cnns(tower: ImageTower) -> Depths:
    """A BriVL image tower: its CNNs side by side, counted from their ends."""
    found = [depths(cnn.net) for cnn in tower.cnns()]
    most = max(len(one.layers) for one in found)
    place = {name: most + 1 for name, _ in tower.named_parameters()}
    for number, one in enumerate(found):
        for name, at in one.place.items():
            place[f"backbones.{number}.net.{name}"] = max(at + most - len(one.layers), 0)
    return Depths(max((one.layers for one in found), key=len), place)


def _stack(tower: nn.Module) -> tuple[str, list[tuple[str, nn.Module]]]:
    """Prefix of the layers' names, and the layers by name."""
    best: tuple[int, str, list[tuple[str, nn.Module]]] = (0, "", [])
    for name, module in tower.named_modules():
        prefix = f"{name}." if name else ""
        if all(hasattr(module, f"layer{n}") for n in (1, 2, 3, 4)):
            layers = [(f"layer{n}", module.get_submodule(f"layer{n}")) for n in (1, 2, 3, 4)]
        elif isinstance(module, nn.ModuleList | nn.Sequential):
            layers = list(module.named_children())
            if len(layers) < 2 or len({type(layer) for _, layer in layers}) > 1:
                continue
        else:
            continue
        size = sum(p.numel() for _, layer in layers for p in layer.parameters())
        if size > best[0]:
            best = (size, prefix, layers)
    return best[1], best[2]


def freeze(tower: nn.Module, layers: int, *, what: str, key: str) -> None:
    """Freezes the stem and the first `layers` layers; 0: nothing.

    Args:
        tower: whose.
        layers: how many.
        what, key: the tower's name and the recipe's key, for messages.

    Raises:
        ValueError: the tower has fewer layers, or nothing would be left that learns.
    """
    if not layers:
        return
    found = depths(tower)
    if layers > len(found.layers):
        raise ValueError(f"{key} = {layers}: {what} has {len(found.layers)} layers")
    for name, parameter in tower.named_parameters():
        if found.place[name] <= layers:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        raise ValueError(f"{key} = {layers}: nothing of {what} is left that learns; name it in train.frozen_towers")
