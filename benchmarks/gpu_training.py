"""The parts of gpu.py that train: a step of the recipe brivl-1.0, and a process group of one rank."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu_parts import REPOSITORY, Job, made_pixels, peak, seconds_of


def recipe_of(job: Job) -> Any:
    """The recipe brivl-1.0; small: of its shape, with a tiny CNN and two layers of text."""
    from train.recipe import read_recipe

    path = REPOSITORY / "train" / "recipes" / "brivl-1.0.toml"
    changes = [f'train.device="{job.device}"']
    if job.small:
        changes += [
            'model.image.backbones=[{name="mobilenetv2_035"}]', "model.image.pixels.size=64", "model.image.width=32",
            "model.dim=32", "model.image.head.layers=1", "model.text.head.layers=1", "model.text.max_length=16",
            "model.image.head.heads=2", "model.text.head.heads=2", "model.text.backbone.hidden_size=32",
            "model.text.backbone.num_hidden_layers=2", "model.text.backbone.num_attention_heads=2",
            "model.text.backbone.intermediate_size=64", "model.text.backbone.vocab_size=200",
            "train.frozen_text_layers=1", "train.frozen_blocks=[3]", "train.queue_size=64", "train.batch=4",
            "train.frozen_cnn_modules=[]",
        ]  # fmt: skip
    return read_recipe(path, changes)


@dataclass
class Trainer:
    """The model of a recipe, its optimiser, and one made batch.

    Attributes:
        step: one update, as `train.run.loop` makes it.
    """

    step: Callable[[], float]
    batch: int


def trainer(job: Job, recipe: Any, batch: int, *, checkpointing: bool) -> Trainer:
    """Everything on the device; random weights, random pairs of the longest texts."""
    import torch
    from torch import nn

    from train import distributed
    from train.model.build import build_towers, objective, optimizer_of, save_memory

    cfg, config = recipe.train, recipe.config
    device = torch.device(job.device)
    torch.manual_seed(0)
    towers = build_towers(config, cfg).to(device)
    towers.image.to(memory_format=torch.channels_last)
    if checkpointing:
        save_memory(towers)
    model = objective(towers, config.dim, cfg).to(device).train()
    optimizer = optimizer_of(model, towers, cfg, device)
    learnt = [p for group in optimizer.param_groups for p in group["params"]]
    images = made_pixels(batch, config.image.pixels.size).to(device)
    length = config.text.max_length
    tokens = torch.randint(5, config.text.backbone["vocab_size"], (batch, length), device=device)
    mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    ids = torch.arange(batch, device=device)  # of other images in every step, or the queue has no negatives

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(images, tokens, mask, ids)
        ids.add_(batch)
        loss.backward()
        distributed.average_gradients(learnt)
        nn.utils.clip_grad_norm_(learnt, cfg.clip_grad)
        optimizer.step()
        return float(loss.detach())

    return Trainer(step, batch)


def training(job: Job) -> None:
    """Pairs/s of brivl-1.0's step, at the largest batch of a few that fits and divides the queue."""
    import torch

    recipe = recipe_of(job)
    for name, checkpointing in (("plain", False), ("gradient checkpointing", True)):
        for batch in (4,) if job.small else (320, 192, 96, 48, 24):

            def measure(batch: int = batch, checkpointing: bool = checkpointing) -> dict[str, Any]:
                if job.cuda:
                    torch.cuda.reset_peak_memory_stats(job.device)
                one = trainer(job, recipe, batch, checkpointing=checkpointing)
                first = one.step()
                took = seconds_of(job, one.step, 0.1 if job.small else 8.0, warm=1)
                last = one.step()
                losses = {"first_loss": first, "last_loss": last}
                return {"pairs_per_second": batch / took, "batch": batch, **losses, **peak(job)}

            measured = job.cases.attempt(name, measure)
            if measured is not None or "OutOfMemory" not in str(job.cases.found[name].get("failed", "")):
                break
            torch.cuda.empty_cache()
    if flops := job.cases.attempt("flops", lambda: flops_of_pair(recipe)):  # last: it is counted, and takes a while
        for name, recomputed in (("plain", 0.0), ("gradient checkpointing", flops["recomputed"])):
            case = job.cases.found[name]
            if "pairs_per_second" in case:
                work = flops["together"] + recomputed
                job.cases.put(name, **case, flops_per_second=case["pairs_per_second"] * work)


def flops_of_pair(recipe: Any) -> dict[str, float]:
    """FLOPs of one pair as `train.size` counts them: `together` without checkpointing, and what that adds."""
    from train.size.dry_run import sizes

    flops = sizes(recipe.config, recipe.train).flops
    recomputed = flops["recomputed"]
    return {"together": sum(flops.values()) - recomputed, "recomputed": recomputed}


# -- one rank ------------------------------------------------------------------------------------------------------


def one_rank(job: Job) -> None:
    """A process group of one, by NCCL on a card and gloo elsewhere, and the trainer's step in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    import torch.distributed as dist

    from train import distributed

    rank, processes = distributed.start(job.device)
    try:
        job.cases.put("group", backend=dist.get_backend(), rank=rank, processes=processes)

        def reduce() -> dict[str, Any]:
            numbers = 1 << (10 if job.small else 26)
            values = torch.ones(numbers, device=job.device)
            took = seconds_of(job, lambda: dist.all_reduce(values), 0.5)
            right = bool((values == 1).all())  # the sum over one rank is what it was
            return {"bytes": 4 * numbers, "ms": 1000 * took, "right": right}

        def gather() -> dict[str, Any]:
            rows = torch.randn(8, 4, device=job.device, requires_grad=True)
            whole = distributed.gather_with_gradient(rows)
            (2 * whole).sum().backward()  # type: ignore[no-untyped-call]
            right = bool((whole == rows).all()) and rows.grad is not None and bool((rows.grad == 2).all())
            return {"right": right}

        def step() -> dict[str, Any]:
            one = trainer(job, recipe_of(job), 4 if job.small else 24, checkpointing=False)
            took = seconds_of(job, one.step, 0.1 if job.small else 3.0, warm=1)
            return {"pairs_per_second": one.batch / took, "batch": one.batch}

        job.cases.attempt("all_reduce", reduce)
        job.cases.attempt("gather with gradient", gather)
        job.cases.attempt("training step", step)
    finally:
        distributed.stop()
