"""The size of a run before it is begun: parameters, memory of a GPU, FLOPs and days, from a recipe alone.

    python -m train.pretrain train/recipes/brivl-2.0.toml --dry-run --gpus 112 --gpu a100-40

Nothing is trained and no weights are loaded: the model is built at full size on the meta device. Bytes of a GPU, with
P parameters of both towers of which T are trained, a queue of K keys of D numbers, and b pairs on the GPU:

    weights                4·P         float32, and their buffers
    momentum towers        4·P         a whole copy, as MoCo keeps it
    gradients              4·T
    AdamW                  8·T         two moments
    queues                 8·K·(D+2)   two rings of float32 keys and int64 ids
    bf16 and queue copies  as counted: what the backward pass keeps whatever the batch: bf16 weights, keys
    activations            b · a       a = what autograd saves for one pair (train/size/cost.py), or with checkpointing
    passing                b · 3·l     l = the largest tensor of one pair: input, output and gradient of a layer
    overhead               1.5 GB      CUDA's context, cuDNN's workspaces, transfer buffers

Data parallelism (DDP) repeats all of this on every GPU. ZeRO or FSDP over N GPUs divide what they shard by N: AdamW
(stage 1), gradients (stage 2), weights and momentum towers (stage 3, FSDP). This trainer has data parallelism only; the
plan says whether that is enough. Days = pairs · FLOPs a pair / (N · peak · utilisation), and the utilisation is an
assumption. None of this was compared with a GPU: FLOPs and saved bytes are compared with what torch does on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from train.model.build import build_towers, objective
from train.model.moco import Contrastive
from train.recipe import Recipe, Training
from train.size.cost import Cost, measure

GB = 1e9
OVERHEAD = 1.5 * GB
_FEW = 64
USABLE = 0.95  # of a card: the allocator leaves gaps


@dataclass(frozen=True)
class Gpu:
    """Dense half-precision peak in FLOP/s (maker's figure) and memory in bytes."""

    peak: float
    memory: float


GPUS = {
    "v100-32": Gpu(125e12, 34e9),
    "rtx3090": Gpu(71e12, 25e9),
    "rtx4090": Gpu(165e12, 25e9),
    "a100-40": Gpu(312e12, 42e9),
    "a100-80": Gpu(312e12, 85e9),
    "l40s": Gpu(362e12, 48e9),
    "h20": Gpu(148e12, 103e9),
    "h100": Gpu(989e12, 85e9),
    "h200": Gpu(989e12, 151e9),
}
ALIASES = {"a100": "a100-80", "a800": "a100-80", "h800": "h100", "v100": "v100-32"}


@dataclass(frozen=True)
class Sizes:
    """What the memory plan needs to know; bytes unless said otherwise. `a_pair` keys: plain, checkpointed."""

    parameters: dict[str, tuple[int, int]]  # tower → (all, trained)
    buffers: int
    queue: int
    copies: int
    a_pair: dict[str, float]
    passing: float
    flops: dict[str, float]  # of one pair: parts, "backward", "recomputed"

    @property
    def all(self) -> int:
        return sum(count for count, _ in self.parameters.values())

    @property
    def trained(self) -> int:
        return sum(count for _, count in self.parameters.values())

    def states(self) -> dict[str, float]:
        """What does not grow with the batch, per GPU under data parallelism."""
        return {
            "weights": 4.0 * self.all + self.buffers,
            "momentum towers": 4.0 * self.all + self.buffers,
            "gradients": 4.0 * self.trained,
            "AdamW": 8.0 * self.trained,
            "bf16 and queue copies": float(self.copies),
            "queues": float(self.queue),
            "overhead": OVERHEAD,
        }

    def sharded(self, gpus: int) -> dict[str, float]:
        """The sum of `states` per GPU under ZeRO-1, ZeRO-2 and ZeRO-3 / FSDP."""
        states = self.states()
        total = sum(states.values())
        out = {}
        for name, more in (
            ("ZeRO-1", ["AdamW"]), ("ZeRO-2", ["gradients"]), ("ZeRO-3 / FSDP", ["weights", "momentum towers"]),
        ):  # fmt: skip
            total -= sum(states[part] * (1 - 1 / gpus) for part in more)
            out[name] = total
        return out

    def fits(self, memory: float, states: float, kind: str) -> int:
        """Pairs that fit on a GPU of `memory` bytes beside `states`."""
        return max(math.floor((USABLE * memory - states) / (self.a_pair[kind] + self.passing)), 0)


def on_meta(config: ModelConfig, cfg: Training) -> Contrastive:
    """The recipe's model at full size without memory."""
    with torch.device("meta"):
        towers = build_towers(config, cfg)
        towers.text_chunks = 1  # chunks are cut by lengths, which a fake batch does not have
        towers.sentences = None
        towers.cached_blocks = ()  # what would be read from a cache is counted as computed
        return objective(towers, config.dim, cfg)


def sizes(config: ModelConfig, cfg: Training, *, tokens: int = 0) -> Sizes:
    """Counts a recipe's model.

    Args:
        config: the model.
        cfg: the recipe's `[train]` table.
        tokens: length of a text, 0: the longest.
    """
    model = on_meta(config, cfg)
    parameters = {}
    for name in ("image", "text"):
        found = list(getattr(model.online, name).parameters())
        parameters[name] = (sum(p.numel() for p in found), sum(p.numel() for p in found if p.requires_grad))
    buffers = sum(b.numel() * b.element_size() for b in model.online.buffers())
    keys = cfg.queue_size if cfg.loss == "moco" else 0
    # Two batches, so large that no weight is the largest tensor: what grows between them is the pairs'.
    few, many = (fake_cost(model, config, cfg, pairs, tokens) for pairs in (_FEW, 2 * _FEW))

    def slope(a: float, b: float) -> float:
        return (b - a) / _FEW

    plain, checkpointed = slope(few.saved, many.saved), slope(few.checkpointed, many.checkpointed)
    flops = {f"{part} forward": slope(few.forward[part], many.forward[part]) for part in many.forward}
    flops["backward"] = slope(sum(few.backward.values()), sum(many.backward.values()))
    flops["recomputed"] = slope(few.recomputed, many.recomputed)
    return Sizes(
        parameters,
        buffers,
        2 * keys * (4 * config.dim + 8),
        max(round(few.saved - _FEW * plain), 0),
        {"plain": plain, "checkpointed": checkpointed},
        3 * slope(few.largest, many.largest),
        flops,
    )


def fake_cost(model: Contrastive, config: ModelConfig, cfg: Training, pairs: int, tokens: int = 0) -> Cost:
    """`measure` for `pairs` pairs, with fake tensors."""
    length, side = tokens or config.text.max_length, config.image.pixels.size
    captions = cfg.captions_per_image
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialize(model)
        model.train()
        batch = {
            "images": torch.empty(pairs, side, side, 3, dtype=torch.uint8),
            "token_ids": torch.zeros(pairs * captions, length, dtype=torch.long),
            "token_mask": torch.ones(pairs * captions, length, dtype=torch.bool),
            "ids": torch.zeros(pairs, dtype=torch.long),
        }
        return measure(model, batch, bf16=cfg.bf16 is not False)


def _materialize(model: nn.Module) -> None:
    """Parameters and buffers as fake tensors of the mode that is open. (`to_empty` cannot swap meta for fake.)"""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        if isinstance(module, ImageTower):
            module._pooling.clear()  # made in another mode


def report(name: Path, recipe: Recipe, found: Sizes, *, gpus: int, gpu: str, mfu: float, tokens: int) -> str:
    """What `--dry-run` prints."""
    cfg = recipe.train
    card = GPUS[ALIASES.get(gpu, gpu)]
    batch, steps = cfg.batch, cfg.steps
    local = batch / gpus
    states = found.states()
    fixed = sum(states.values())
    lines = [f"{name}: the model at full size, on the meta device; nothing was trained", "", "parameters"]
    for tower, (count, trained) in found.parameters.items():
        lines.append(f"  {tower + ' tower':<18}{count / 1e6:9.1f} M   trained {trained / 1e6:8.1f} M")
    lines.append(f"  {'both':<18}{found.all / 1e6:9.1f} M   with momentum towers {2 * found.all / 1e6:,.1f} M")
    lines += [
        "",
        f"memory of a GPU, GB (10⁹ bytes); {local:.4g} of {batch:,} pairs on each of {gpus}, texts of {tokens} tokens",
    ]
    lines += [f"  {part:<34}{size / GB:9.2f}" for part, size in states.items()]
    lines.append(f"  {'sum without activations':<34}{fixed / GB:9.2f}")
    for kind in ("plain", "checkpointed"):
        label = "activations" if kind == "plain" else "activations, checkpointed"
        bytes_a_pair = found.a_pair[kind]
        lines.append(f"  {label:<34}{bytes_a_pair * local / GB:9.2f}   {bytes_a_pair / 1e6:8.1f} MB a pair")
    lines.append(f"  {'passing':<34}{found.passing * local / GB:9.2f}   {found.passing / 1e6:8.1f} MB a pair")
    lines += ["", "does data parallelism (DDP) fit?      pairs a GPU: plain, checkpointed"]
    for label, memory in {"40 GB": 42e9, "80 GB": 85e9, gpu: card.memory}.items():
        plain, checkpointed = (found.fits(memory, fixed, kind) for kind in ("plain", "checkpointed"))
        lines.append(f"  {label:<34}{plain:5d} {checkpointed:6d}   {_verdict(plain, checkpointed, local)}")
    sharded = ", ".join(f"{kind} {size / GB:.1f}" for kind, size in found.sharded(gpus).items())
    lines.append(f"  sharded over {gpus} GPUs the sum without activations would be, GB: {sharded}")
    lines += ["", "FLOPs of one pair in one step, 10⁹"]
    total = 0.0
    for part, flops in found.flops.items():
        if part == "recomputed":
            lines.append(f"  {'with checkpointing, also':<34}{flops / 1e9:11.1f}")
        else:
            total += flops
            lines.append(f"  {part:<34}{flops / 1e9:11.1f}")
    lines.append(f"  {'together':<34}{total / 1e9:11.1f}")
    if cfg.gradient_checkpointing:
        total += found.flops["recomputed"]
    pairs = steps * batch
    days = {share: pairs * total / (gpus * card.peak * share) / 86400 for share in sorted({0.05, mfu, 0.4})}
    shown = ", ".join(f"{count:.2g} at {100 * share:g} %" for share, count in days.items())
    lines += [
        "",
        f"{steps:,} steps × {batch:,} pairs = {pairs:,} pairs, {pairs * total:.2e} FLOPs",
        f"days on {gpus} × {gpu}: {shown} of {card.peak / 1e12:g} TFLOP/s. The shares are assumptions (--mfu):",
        "  large matrix products reach 40 %, depthwise convolutions a few; a tenth of a run measured tells more",
    ]
    return "\n".join(lines)


def _verdict(plain: int, checkpointed: int, local: float) -> str:
    if plain >= local:
        return "yes"
    if checkpointed >= local:
        return "yes, with train.gradient_checkpointing = true"
    if checkpointed:
        return f"with train.accumulate = {math.ceil(local / checkpointed)} and checkpointing, or more GPUs"
    return "no: the states alone do not fit, use ZeRO or FSDP"
