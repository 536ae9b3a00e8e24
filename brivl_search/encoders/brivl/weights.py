"""The tensors of a checkpoint's file: float32, float16, or large matrices in int8 with a scale for every row.

int8 halves a file once more: value ≈ integer · scale of its row, the scale being the row's largest magnitude / 127.
It is only how they are kept; towers compute in what they were loaded into.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SCALE = ".row_scale"  # after the name of an int8 tensor
LARGE = 65_536  # numbers; smaller matrices stay float16


def quantize(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix (R, C) → int8 (R, C) and float32 scales (R, 1); a value is off by at most half a scale."""
    import torch

    values = tensor.float()
    scale = values.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (values / scale).round().to(torch.int8), scale


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, half: bool, int8: bool = False) -> None:
    """Writes one safetensors file beside its place and renames it.

    Args:
        path: of the file.
        tensors: by name.
        half: float16 for floating point; BatchNorm statistics stay float32.
        int8: matrices of `LARGE` numbers and more in int8, the rest as `half` says.
    """
    from safetensors.torch import save_file

    ready: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if int8 and value.is_floating_point() and value.ndim == 2 and value.numel() >= LARGE:
            value, ready[name + SCALE] = quantize(value)
        elif half and value.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            value = value.half()
        ready[name] = value
    temporary = path.with_name(path.name + ".tmp")
    save_file(ready, str(temporary))
    temporary.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(temporary, path)


def names_of(file: Any) -> list[str]:
    """Of an open safetensors file, the tensors without their scales."""
    return [name for name in file.keys() if not name.endswith(SCALE)]  # noqa: SIM118 - not a dict


def scales_of(file: Any) -> set[str]:
    """The tensors that are kept in int8."""
    return {name.removesuffix(SCALE) for name in file.keys() if name.endswith(SCALE)}  # noqa: SIM118 - not a dict
