"""A tower of torch → an ONNX file, by torch's exporter that traces.

Three things are made plain first, which compute the same: attention of `nn.MultiheadAttention` (traced, it keeps the
length of the example), transformers' own attention, and timm's convolutions that pad by the size of the picture.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.errors import EncoderError

OPSET = 18


@dataclass(frozen=True)
class Exportable:
    """One side of an encoder as a module that can be exported.

    Attributes:
        module: inputs → vectors float32 (n, dim), before anything that NumPy does to them.
        inputs: their names, in the order of the arguments.
        example: a batch of `n` inputs, each row another.
        lengths: for each input the axes beside the first that differ between batches.
        more: further examples, of other lengths, on which the export is compared too.
    """

    module: nn.Module
    inputs: Sequence[str]
    example: Callable[[int], tuple[Tensor, ...]]
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    more: Sequence[Callable[[int], tuple[Tensor, ...]]] = ()


class PlainAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` by its definition; a module becomes one by its class."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """(B, T, D), or (T, B, D) unless `batch_first`, → the same shape. Weights are not given."""
        if not self.batch_first:
            query, key, value = (one.transpose(0, 1) for one in (query, key, value))
        parts = zip((query, key, value), self._weights(), self._biases(), strict=True)
        q, k, v = (self._by_head(F.linear(one, weight, bias)) for one, weight, bias in parts)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        if attn_mask is not None and attn_mask.ndim == 3:  # one a head
            attn_mask = attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[1:])
        if attn_mask is not None:
            scores = scores.masked_fill(attn_mask, -1e30) if attn_mask.dtype == torch.bool else scores + attn_mask
        if key_padding_mask is not None:
            padded = key_padding_mask if key_padding_mask.dtype == torch.bool else key_padding_mask < 0
            scores = scores.masked_fill(padded[:, None, None, :], -1e30)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        found = F.linear(mixed, self.out_proj.weight, self.out_proj.bias)
        return (found if self.batch_first else found.transpose(0, 1)), None

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, heads, T, D / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def _weights(self) -> Sequence[Tensor]:
        if self.in_proj_weight is not None:
            return self.in_proj_weight.chunk(3)
        return [one for one in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if one is not None]

    def _biases(self) -> Sequence[Tensor | None]:
        return [None] * 3 if self.in_proj_bias is None else list(self.in_proj_bias.chunk(3))


def export(side: Exportable, path: Path, name: str) -> None:
    """Writes the ONNX file of a side; the first axis of inputs and output is free.

    Args:
        side: what to export. Its module is changed.
        path: the file.
        name: of the encoder, for messages.

    Raises:
        EncoderError: something in it has no form in ONNX; the message names the layer.
    """
    module = side.module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    _plain(module)
    axes = {one: {0: "n", **{axis: f"{one}_{axis}" for axis in side.lengths.get(one, ())}} for one in side.inputs}
    inner = _Where(module)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _no_fast_path(), inner:
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                side.example(2),
                str(path),
                input_names=list(side.inputs),
                output_names=["vectors"],
                dynamic_axes={**axes, "vectors": {0: "n"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises what its parts raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(f"{name} cannot be exported: {inner.layer}: {reason}") from None


def _plain(module: nn.Module) -> None:
    from timm.layers import Conv2dSame

    for part in module.modules():
        if type(part) is nn.MultiheadAttention and part.bias_k is None and not part.add_zero_attn:
            part.__class__ = PlainAttention
        elif type(part) is Conv2dSame:
            part.__class__ = _SamePadding
        else:
            plainer: Any = getattr(part, "set_attn_implementation", None)
            if plainer is not None:
                with contextlib.suppress(ValueError, NotImplementedError, AttributeError):
                    plainer("eager")


class _SamePadding(nn.Conv2d):
    """timm's `Conv2dSame` for pictures of one size."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → (B, c, ⌈H / stride⌉, ⌈W / stride⌉)."""
        pads: list[int] = []
        for axis in (1, 0):
            size, kernel = int(input.shape[2 + axis]), (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // self.stride[axis]) - 1) * self.stride[axis] + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        padded = F.pad(input, pads) if any(pads) else input
        return F.conv2d(padded, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class _Where:
    """Knows which layer ran last, for the message of one that cannot be exported."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names = {id(part): name for name, part in module.named_modules()}
        self._hooks: list[Any] = []
        self.layer = type(module).__name__

    def __enter__(self) -> None:
        def enter(part: nn.Module, _: Any) -> None:
            name = self._names.get(id(part), "")
            self.layer = f"{name} ({type(part).__name__})" if name else type(part).__name__

        self._hooks = [part.register_forward_pre_hook(enter) for part in self._module.modules()]

    def __exit__(self, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Without torch's fused transformer layer, which has no form in ONNX."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
