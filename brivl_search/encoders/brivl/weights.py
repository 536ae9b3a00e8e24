"""How tensors are stored in a checkpoint's file: float32, float16, or large matrices in int8.

int8 halves the file once more. A value is about integer · scale, with one scale per row: the row's largest magnitude
divided by 127. This concerns storage only; a tower computes in float32 or bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brivl_search.corpus.atomic import appearing

if TYPE_CHECKING:
    import torch

SCALE = ".row_scale"  # after the name of an int8 tensor
LARGE = 65_536  # numbers; smaller matrices stay float16


def quantize(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix (R, C) → int8 (R, C) and scales float32 (R, 1). A value is off by at most half its row's scale."""
    import torch

    values = tensor.float()
    scale = values.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (values / scale).round().to(torch.int8), scale


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, half: bool, int8: bool = False) -> None:
    """Writes one safetensors file under a temporary name and renames it.

    Args:
        path: the file.
        tensors: by name.
        half: floating point in float16; BatchNorm statistics stay float32.
        int8: matrices of at least `LARGE` numbers in int8, the rest as `half` says.
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
    with appearing(path) as (temporary,):
        save_file(ready, str(temporary))
        temporary.chmod(0o644)  # safetensors writes for the owner alone


def names_of(file: Any) -> list[str]:
    """Names of the tensors in an open safetensors file, without the scales."""
    return [name for name in file.keys() if not name.endswith(SCALE)]  # noqa: SIM118 - not a dict


def scales_of(file: Any) -> set[str]:
    """Names of the tensors that are stored in int8."""
    return {name.removesuffix(SCALE) for name in file.keys() if name.endswith(SCALE)}  # noqa: SIM118 - not a dict
