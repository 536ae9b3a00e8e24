"""The training loop: steps, log, validation, checkpoints."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from brivl_search.encoders.brivl.checkpoint import save_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from train import distributed
from train.data.photos import StepDataset
from train.data.stream import ShardSteps
from train.model.moco import Clip, MoCo
from train.recipe import Recipe
from train.run.curves import plot
from train.run.state import load_state, save_state, trim_log
from train.run.validate import Validation


@dataclass(frozen=True)
class Session:
    """Where and how a run goes on; `stop_after` ends this sitting at a step, the schedule stays."""

    recipe: Recipe
    run: Path
    config: ModelConfig
    tokenizer: TextTokenizer
    device: torch.device
    bf16: bool
    stop_after: int | None = None


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero; a factor on every group's rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def train_step(
    model: MoCo | Clip, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], session: Session
) -> float:
    """One update from the whole batch, in `accumulate` parts and over all processes; its loss."""
    cfg, device = session.recipe.train, session.device
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    parts = cfg.accumulate
    shares = model.losses(batch["images"], batch["token_ids"], batch["token_mask"], batch["ids"], parts)
    while True:
        with torch.autocast(device.type, torch.bfloat16, enabled=session.bf16):
            share = next(shares, None)
        if share is None:
            break
        share.backward()  # type: ignore[no-untyped-call]
        total += share.item()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, cfg.clip_grad)
    optimizer.step()
    return distributed.average(total, device)


def fit(
    model: MoCo | Clip,
    optimizer: torch.optim.Optimizer,
    dataset: StepDataset | ShardSteps,
    validation: Validation,
    session: Session,
) -> None:
    """Trains to the recipe's last step, from last.pt where there is one. The first process writes and shows."""
    run, device, cfg = session.run, session.device, session.recipe.train
    step, best = load_state(run / "last.pt", model, optimizer, device, dataset)
    first = distributed.is_first()
    history = trim_log(run / "log.jsonl", step) if first else []
    steps, every = cfg.steps, cfg.eval_every
    last = min(steps, session.stop_after or steps)
    workers = cfg.workers
    ahead: dict[str, Any] = {"num_workers": workers, "prefetch_factor": 4} if workers else {}
    # Its own generator: starting a loader draws a number, and the dropout of a resumed run must not see that.
    loader = DataLoader(dataset, batch_size=None, sampler=range(step, last), generator=torch.Generator(), **ahead)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=not first) as progress, (run / "log.jsonl").open("a", buffering=1) as log:
        task = progress.add_task("training", total=steps, completed=step)
        window, since = [], time.perf_counter()
        recall = next((line["recall"] for line in reversed(history) if "recall" in line), None)
        model.train()
        for batch in loader:
            rate = rate_at(step, steps, cfg.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            window.append(train_step(model, optimizer, batch, session))
            step += 1
            if not math.isfinite(window[-1]):
                raise SystemExit(f"the loss is {window[-1]} at step {step}: lower train.lr, or set train.bf16=false")
            due = step % every == 0 or step == last
            if step % 20 == 0 or due:
                speed = len(window) * cfg.batch / (time.perf_counter() - since)
                line: dict[str, Any] = {
                    "step": step,
                    "loss": sum(window) / len(window),
                    "images_per_s": speed,
                    "rate": rate,
                }
                if due and first:
                    recall = line["recall"] = validation.measure(model.slow, final=step == steps)
                    if (score := validation.score(recall)) >= best:
                        best = score
                        facts = {"recipe": without_model(session.recipe.raw), "step": step, "val": recall}
                        kept = replace(session.config, training=facts)
                        towers = model.slow
                        save_checkpoint(run / "checkpoint", kept, towers.image, towers.text, session.tokenizer)
                    model.train()
                if first:  # before the state: what follows the state's step is dropped on resume
                    log.write(json.dumps(line) + "\n")
                    history.append(line)
                if due:
                    save_state(run / "last.pt", model, optimizer, step, best, dataset)
                    if first:
                        plot(history, run / "curves.png")
                shown = f"loss {line['loss']:.3f} · {speed:.0f} img/s · {validation.short(recall)}"
                progress.update(task, description=shown)
                window, since = [], time.perf_counter()
            progress.update(task, completed=step)
    if first:
        print(f"{run}: step {step} of {steps}, best validation {validation.name} {best:.1f}")


def without_model(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of the recipe goes into a checkpoint's config.json: all but the model, which is there already."""
    return {key: value for key, value in recipe.items() if key != "model"}
