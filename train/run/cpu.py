"""What makes training bearable on a CPU; a GPU needs none of it."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType

import torch
from torch import nn

from brivl_search.encoders.memory import keep_freed_memory


def quicken(bf16_cnns: nn.Module | None = None) -> None:
    """For this process: no fused attention, whose backward pass takes most of a text tower's time; memory kept.

    Args:
        bf16_cnns: networks trained in bfloat16; their depthwise convolutions stay float32.
    """
    keep_freed_memory()
    torch.backends.cuda.enable_flash_sdp(False)  # for the CPU's kernel too, despite its name
    if bf16_cnns is not None:
        depthwise_in_float32(bf16_cnns)


def depthwise_in_float32(backbones: nn.Module) -> None:
    """bf16 depthwise convolutions have a slow backward pass on CPUs; the rest of the network stays bf16."""
    for module in backbones.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            # A method, so that a copy of the module gets its own.
            module.forward = MethodType(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    plain: Callable[[nn.Conv2d, torch.Tensor], torch.Tensor] = type(self).forward
    if not torch.is_grad_enabled():
        return plain(self, x)
    with torch.autocast("cpu", enabled=False):
        return plain(self, x.float())
