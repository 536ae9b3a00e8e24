"""What a training step costs, without running it: FLOPs by formula, and the bytes kept for the backward pass.

The model is made on the meta device and called with fake tensors (shapes and dtypes without data), while every
matrix product and convolution is met on its way and counted. With 2 FLOPs a multiply-add:

    linear        x (…, T, I), W (O, I)                   F = 2·T·I·O
    convolution   O × (I/groups) × k × k on h × w outputs   F = 2·B·O·(I/groups)·k²·h·w
    attention     q (B, H, T, d), k, v (B, H, S, d)         F = 4·B·H·T·S·d     (scores, and their product with v)
    product       (…, n, m) @ (…, m, p)                     F = 2·n·m·p

Backward costs F once for every operand that needs a gradient: a trained layer 3·F in all, a frozen one below trained
ones 2·F, one behind which nothing is trained F. (FlashAttention recomputes scores: 0.5·F more, not counted.)
Gradient checkpointing adds the forward FLOPs of what is recomputed. Norms, activations and the optimiser are not
counted: they take time, but hardly FLOPs.

Activation memory is the sum of what autograd saves, each storage once, under bf16 autocast. With checkpointing it is
the inputs of the recomputed segments, all that is saved outside them, and the largest segment, which is there during
its own backward pass.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from train.model.moco import Contrastive


@dataclass
class Cost:
    """Of one step with some batch.

    Attributes:
        forward, backward: FLOPs by part ("image", "text", "momentum", "loss").
        recomputed: forward FLOPs inside segments, which checkpointing does twice.
        saved: bytes kept for the backward pass.
        checkpointed: the same with checkpointing: inputs of segments, what is outside them, the largest segment.
        segment: bytes of that.
        largest: bytes of the largest single tensor met.
    """

    forward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    backward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    recomputed: float = 0.0
    saved: int = 0
    checkpointed: int = 0
    segment: int = 0
    largest: int = 0

    @property
    def flops(self) -> float:
        """Of the step, without checkpointing."""
        return sum(self.forward.values()) + sum(self.backward.values())


def linear_flops(x: Tensor, weight: Tensor) -> float:
    """2 · (elements of x) · (outputs)."""
    return 2.0 * x.numel() * weight.shape[0]


def conv_flops(out: Tensor, weight: Tensor) -> float:
    """2 · (elements of the output) · (I/groups) · k²; `weight` is (O, I/groups, k, k)."""
    return 2.0 * out.numel() * math.prod(weight.shape[1:])


def attention_flops(q: Tensor, k: Tensor) -> float:
    """4 · B · H · T · S · d for q (B, H, T, d) and k (B, H, S, d)."""
    return 4.0 * q.numel() * k.shape[-2]


def product_flops(a: Tensor, out: Tensor) -> float:
    """2 · (elements of the output) · m."""
    return 2.0 * out.numel() * a.shape[-1]


_PRODUCTS = (torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm)


class _Counter(TorchFunctionMode):
    """Sees every torch function with its arguments, and counts."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost
        self.part = "loss"
        self.inside: list[float] = []  # forward FLOPs of the segments that are open

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in (F.linear, F.conv1d, F.conv2d, torch.conv2d):
            x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
            self._add(linear_flops(x, weight) if func is F.linear else conv_flops(out, weight), x, weight)
        elif func is F.scaled_dot_product_attention:
            self._add(attention_flops(args[0], args[1]), args[0], args[1])
        elif func is F.multi_head_attention_forward:  # its inside is not seen
            x, weight = args[0], args[5]
            self._add(3 * linear_flops(x, weight[: x.shape[-1]]), x, weight)
            self._add(attention_flops(x.transpose(0, 1), args[1].transpose(0, 1)), out[0], out[0])
            self._add(linear_flops(x, weight[: x.shape[-1]]), out[0], out[0])
        elif func in _PRODUCTS:
            self._add(product_flops(args[0], out), args[0], args[1])
        if isinstance(out, Tensor) and not isinstance(out, nn.Parameter):
            self.cost.largest = max(self.cost.largest, out.numel() * out.element_size())
        return out

    def _add(self, flops: float, *operands: Tensor) -> None:
        self.cost.forward[self.part] += flops
        if torch.is_grad_enabled():
            self.cost.backward[self.part] += flops * sum(bool(operand.requires_grad) for operand in operands)
        if self.inside:
            self.inside[-1] += flops


def segments(model: Contrastive) -> list[nn.Module]:
    """What `train.gradient_checkpointing` recomputes: every block of a CNN and every layer of the text backbone."""
    found: list[nn.Module] = []
    for backbone in model.online.image.backbones:
        for stage in getattr(backbone.net, "blocks", []):
            found += list(stage) if isinstance(stage, nn.Sequential) else [stage]
    found += list(getattr(getattr(model.online.text.backbone, "encoder", None), "layer", []))
    return found


def measure(model: Contrastive, batch: dict[str, Tensor], *, bf16: bool) -> Cost:
    """The cost of one step's forward and backward pass; only the forward pass is run.

    Args:
        model: on a device or fake; its momentum towers move as in a step.
        batch: `images`, `token_ids`, `token_mask`, `ids` as the loop gives them.
        bf16: under autocast, as in training.
    """
    cost = Cost()
    counter = _Counter(cost)
    state = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}  # references, so that no storage is freed and its address used again
    inside: dict[int, int] = {}  # storage → segment it is saved in, -1 outside
    inputs: dict[int, int] = {}
    open_segments: list[tuple[int, Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in state and storage._cdata not in kept:
            kept[storage._cdata] = tensor
            inside[storage._cdata] = open_segments[-1][0] if open_segments else -1
        return tensor

    def enter(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            open_segments.append((number, next(t for t in (*args, *kwargs.values()) if isinstance(t, Tensor))))
            counter.inside.append(0.0)

        return hook

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        _, given = open_segments.pop()
        flops = counter.inside.pop()
        if (out if isinstance(out, Tensor) else out[0]).requires_grad:  # else nothing is saved or recomputed
            cost.recomputed += flops
            kept.setdefault(given.untyped_storage()._cdata, given)
            inputs[given.untyped_storage()._cdata] = given.untyped_storage().nbytes()

    handles = []
    for number, module in enumerate(segments(model)):
        handles.append(module.register_forward_pre_hook(enter(number), with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    device = batch["images"].device.type
    try:
        with (
            _parts(model, counter),
            counter,
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast(device, torch.bfloat16, enabled=bf16),
        ):
            next(model.losses(batch["images"], batch["token_ids"], batch["token_mask"], batch["ids"]))
    finally:
        for handle in handles:
            handle.remove()
    by_segment: dict[int, int] = defaultdict(int)
    for address, segment in inside.items():
        size = kept[address].untyped_storage().nbytes()
        cost.saved += size
        if address not in inputs:
            by_segment[segment] += size
    cost.segment = max((size for segment, size in by_segment.items() if segment >= 0), default=0)
    cost.checkpointed = by_segment[-1] + sum(inputs.values()) + cost.segment
    return cost


@contextmanager
def _parts(model: Contrastive, counter: _Counter) -> Iterator[None]:
    """Names the part of the model that the counter is in."""
    wrapped = []
    for towers, names in ((model.online, ("image", "image", "text")), (model.slow, ("momentum",) * 3)):
        for method, name in zip(("prepare", "embed_images", "embed_texts"), names, strict=True):
            inner = getattr(towers, method)

            def call(*args: Any, inner: Any = inner, name: str = name) -> Any:
                before, counter.part = counter.part, name
                try:
                    return inner(*args)
                finally:
                    counter.part = before

            setattr(towers, method, call)
            wrapped.append((towers, method))
    try:
        yield
    finally:
        for towers, method in wrapped:
            delattr(towers, method)
