"""What makes training bearable on a CPU; a GPU needs none of it."""

from __future__ import annotations

from collections.abc import Callable

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
            inner: Callable[[torch.Tensor], torch.Tensor] = module.forward

            def forward(x: torch.Tensor, inner: Callable[[torch.Tensor], torch.Tensor] = inner) -> torch.Tensor:
                if not torch.is_grad_enabled():
                    return inner(x)
                with torch.autocast("cpu", enabled=False):
                    return inner(x.float())

            module.forward = forward  # type: ignore[method-assign, assignment]
