"""What a run keeps on disk to go on from: last.pt, the one before it, and a log cut back to them.

A state is only written while every number in it is finite. If the loss stops being finite, the run ends, and
diverged.json says where and with which settings. The next start needs other settings. It goes on from last.pt, or from
previous.pt where last.pt leads to nothing finite.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from brivl_search.errors import UsageError
from train import distributed

LAST, PREVIOUS, DIVERGED = "last.pt", "previous.pt", "diverged.json"


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
    *,
    more: dict[str, Any] | None = None,
    keep_previous: bool = False,
) -> None:
    """Writes last.pt beside its place and renames it: a kill leaves the old one or the new one.

    To be called by every process, each of which has a random state of its own; the first one writes.

    Args:
        path: of last.pt.
        model, optimizer, step, best, data: what goes on later.
        more: whatever else; `load_state` gives it back.
        keep_previous: the state that was there becomes previous.pt.
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
            "more": more or {},
        }
        new = path.with_suffix(".tmp")
        try:
            with new.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            new.unlink(missing_ok=True)  # a full disk is not to stay full
            raise
        if keep_previous and path.is_file():
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(new, path)
    distributed.wait_for_all()


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    data: Resumable | None = None,
    more: dict[str, Any] | None = None,
) -> tuple[int, float]:
    """Continues from last.pt if it is there; (step, best score so far).

    Learning rates stay the recipe's, also where it was changed for the rest of the run. `more` gets what `save_state`
    got.

    Raises:
        UsageError: the state is of a model of another shape.
    """
    if not path.is_file():  # a kill between two renames leaves the older one alone
        path = path.with_name(PREVIOUS)
    if not path.is_file():
        return 0, -1.0
    state = torch.load(path, map_location=device, weights_only=True)
    if data:
        data.go_on(int(state["step"]), state.get("data", {}))
    try:
        model.load_state_dict(state["model"])
        rates = [(group.get("base_lr"), group["lr"]) for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path} is of another model than the recipe's: give another `run`, or set the recipe back ({what} …)"
        ) from None
    for group, (base, rate) in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if base is not None:
            group["base_lr"] = base
    random = state["random"]
    mine = random[min(distributed.rank(), len(random) - 1)]
    torch.set_rng_state(mine["rng"].cpu())
    if mine["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([rng.cpu() for rng in mine["cuda_rng"]])
    if more is not None:
        more.update(state.get("more", {}))
    return int(state["step"]), float(state["best"])


def trim_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops log lines past `step` (written after the last checkpoint, before the kill) and returns the rest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    kept = [line for line in lines if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept


# -- runs whose loss stops being finite ------------------------------------------------------------------------------


@torch.no_grad()
def all_finite(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Whether no weight, statistic, key or moment is NaN or infinite."""

    def tensors() -> Iterator[Tensor]:
        yield from model.state_dict().values()
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    return all(bool(tensor.isfinite().all()) for tensor in tensors() if tensor.is_floating_point())


def diverged(run: Path, step: int, settings: dict[str, Any], *, since: int) -> str:
    """Notes that the run ended at `step`, and puts in the place of last.pt what the next start goes on from.

    Args:
        run: the run's folder.
        step: the first step whose loss or gradient is not finite.
        settings: the recipe's `[train]` table as it is.
        since: steps with a finite loss since last.pt was written or read.

    Returns:
        What the next start does.
    """
    last, previous, note = run / LAST, run / PREVIOUS, run / DIVERGED
    again = note.is_file() and bool(json.loads(note.read_text()).get("tried"))
    back = not since or again  # that state leads to no finite loss, or has led here once more
    if back and previous.is_file():
        os.replace(previous, last)
    elif back:
        last.unlink(missing_ok=True)
    found = torch.load(last, map_location="cpu", weights_only=True)["step"] if last.is_file() else 0
    note.write_text(json.dumps({"step": step, "settings": settings, "from": found}) + "\n")
    return f"it goes on from step {found}" if found else "it begins anew"


def check_diverged(run: Path, settings: dict[str, Any]) -> None:
    """Of a run that ended so, the same settings would end it again.

    Raises:
        UsageError: nothing in the recipe's `[train]` table was changed since.
    """
    note = run / DIVERGED
    if not note.is_file():
        return
    told = json.loads(note.read_text())
    if told["settings"] == settings:
        raise UsageError(
            f"{run} stopped at step {told['step']} because its loss was not finite: lower train.lr (it is "
            f"{settings.get('lr')}), or set train.bf16=false; delete {note} to try again with the same settings"
        )
    note.write_text(json.dumps({**told, "tried": True}) + "\n")


def past_divergence(run: Path, step: int) -> None:
    """To be called when a state is saved: the run has gone past the step where it ended before."""
    note = run / DIVERGED
    if note.is_file() and json.loads(note.read_text())["step"] < step:
        note.unlink()
