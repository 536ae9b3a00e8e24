"""Between the start and what was learnt: averages of weights forget less (WiSE-FT: Wortsman et al., 2022).

θ_s = θ_start + s · (θ − θ_start) for several shares s. Each is measured on the held-out pairs, by which one is chosen,
and on the general ones, which only tell. Of LoRA's B·A the share is that of B: it is zero at the start.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.model.lora import GROWS
from train.model.towers import TwoTowers
from train.run.best import Best
from train.run.general import General, shown
from train.run.validate import Recall

Weights = dict[str, Tensor]


def weights_of(towers: TwoTowers, online: TwoTowers | None = None) -> Weights:
    """A copy, on the CPU, of what changes: what learns (of LoRA's two matrices the one that is zero at the start), and
    the means and variances that a BatchNorm tracks.

    Args:
        towers: whose. A published model's momentum towers begin with weights of their own.
        online: the towers that say what learns; None: `towers` themselves.
    """
    learning = {name for name, p in (online or towers).named_parameters() if p.requires_grad}
    lora = any(GROWS in name for name in learning)
    kept = {name: p for name, p in towers.named_parameters() if name in learning and (not lora or GROWS in name)}
    changing = [*kept.items(), *_statistics(towers).items()]
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in changing}


def _statistics(towers: TwoTowers) -> Weights:
    """Means and variances of every BatchNorm, by name."""
    return {
        f"{name}.{key}": tensor
        for name, module in towers.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key, tensor in module.named_buffers(recurse=False)
        if tensor.is_floating_point()
    }


@torch.no_grad()
def averaged(towers: TwoTowers, start: Weights, share: float) -> TwoTowers:
    """A copy of towers with a share of what they have learnt since `start`."""
    towers.state_dict()  # peft's MultiheadAttention puts its weights back into their places
    out = copy.deepcopy(towers)
    changing: Weights = {**dict(out.named_parameters()), **_statistics(out)}
    for name, first in start.items():
        changing[name].copy_(first.to(changing[name].device).lerp(changing[name], share))
    return out


@dataclass(frozen=True)
class Tried:
    """A share and what it scored.

    Attributes:
        share: of what was learnt.
        recall: on the held-out pairs.
        general: on the general ones.
        score: on the held-out pairs, one number.
    """

    share: float
    recall: Recall
    general: Recall
    score: float


def choose(tried: Sequence[Tried], within: float) -> Tried:
    """The smallest share that scores at most `within` points below the best. Nothing learnt (0) is a choice only if no
    share scores better."""
    best = max(one.score for one in tried)
    start = max((one.score for one in tried if not one.share), default=float("-inf"))
    good = [one for one in tried if one.score >= best - within and (one.score > start or not one.share)]
    learnt = [one for one in good if one.share and one.score > start]
    return min(learnt or good, key=lambda one: (one.share, -one.score))


def try_shares(towers: TwoTowers, start: Weights, shares: Sequence[float], best: Best, general: General) -> list[Tried]:
    """Measures the start (0), the shares, and all that was learnt (1).

    Args:
        towers: at the end of the training.
        start: `weights_of` before it.
        shares: to be tried.
        best: what measures on held-out pairs.
        general: what tells of others.
    """
    tried = []
    for share in sorted({0.0, *shares, 1.0}):
        some = averaged(towers, start, share)
        recall = best.validation.measure(some, final=True)
        tried.append(Tried(share, recall, general.measure(some), best.validation.score(recall)))
    return tried


def table(tried: Sequence[Tried], chosen: Tried) -> list[str]:
    """What every share scored, in lines."""
    lines = ["share of what was learnt (WiSE-FT), R@1/5/10 text→image | image→text:"]
    for one in tried:
        parts = [f"{name} {shown(one.recall[name])}" for name in one.recall]
        parts += [f"general {name} {shown(one.general[name])}" for name in one.general]
        lines.append(f"  {one.share:.2f}{' *' if one is chosen else '  '} {'; '.join(parts)}")
    return lines
