"""What a run keeps on disk to go on from: last.pt, and a log cut back to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from train import distributed


def random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"rng": torch.get_rng_state(), "cuda_rng": cuda}


class Resumable(Protocol):
    """Training data that has a state of its own: where the next step's pairs begin."""

    def state(self, step: int) -> dict[str, Any]: ...
    def go_on(self, step: int, state: dict[str, Any]) -> None: ...


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    best: float,
    data: Resumable | None = None,
) -> None:
    """Writes last.pt beside its place and renames it: a kill leaves the old one or the new one.

    To be called by every process, each of which has a random state of its own; the first one writes.
    """
    random = distributed.gather_objects(random_state())
    if distributed.is_first():
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": random,
            "step": step,
            "best": best,
            "data": data.state(step) if data else {},
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)
    distributed.wait_for_all()


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    data: Resumable | None = None,
) -> tuple[int, float]:
    """Continues from last.pt if it is there; (step, best score so far).

    Learning rates stay the recipe's, also where it was changed for the rest of the run.
    """
    if not path.is_file():
        return 0, -1.0
    state = torch.load(path, map_location=device, weights_only=True)
    if data:
        data.go_on(int(state["step"]), state.get("data", {}))
    model.load_state_dict(state["model"])
    rates = [(group.get("base_lr"), group["lr"]) for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, (base, rate) in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if base is not None:
            group["base_lr"] = base
    random = state["random"]
    mine = random[min(distributed.rank(), len(random) - 1)]
    torch.set_rng_state(mine["rng"].cpu())
    if mine["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([rng.cpu() for rng in mine["cuda_rng"]])
    return int(state["step"]), float(state["best"])


def trim_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops log lines past `step` (written after the last checkpoint, before the kill) and returns the rest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    kept = [line for line in lines if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept
