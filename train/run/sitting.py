"""The loop of a model that learns beside frozen towers: log, measure, save, stop, and go on after a kill.

What is kept is a running average of the weights.
"""

from __future__ import annotations

import copy
import json
import math
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.device import has_fast_bf16
from train.beside import BesideRecipe, BesideTraining
from train.model.build import Group, rates
from train.model.sizes import checkpoint_folder
from train.run.curves import plot
from train.run.loop import NotFiniteError, rate_at
from train.run.show import Bar
from train.run.state import LAST, load_state, save_state, trim_log
from train.run.stop import Stop


class Learner(nn.Module):
    """What learns, and its running average.

    Attributes:
        fast, slow: the model, and the average of its weights.
        parts: what the last loss was made of.
    """

    def __init__(self, model: nn.Module, average: float) -> None:
        super().__init__()
        self.fast, self.slow = model, copy.deepcopy(model).requires_grad_(False).eval()
        self.average, self.parts = average, dict[str, float]()

    @abstractmethod
    def loss(self, step: int, *, bf16: bool) -> Tensor:
        """The loss of a step; it sets `parts`."""

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Moves the average towards what is learnt; faster in the first steps."""
        momentum = min(self.average, (1 + step) / (10 + step))
        for kept, new in zip(self.slow.parameters(), self.fast.parameters(), strict=True):
            if new.requires_grad:
                kept.lerp_(new, 1 - momentum)


def inheriting(model: nn.Module, cfg: BesideTraining, inherited: set[str]) -> list[Group]:
    """AdamW groups: `inherited` parameters have their share of the rate."""
    return rates(model, cfg.lr, cfg.weight_decay, lambda name: cfg.known_lr_factor if name in inherited else 1.0)


def frozen_towers(recipe: BesideRecipe, base: Path) -> BriVLEncoder:
    """The towers that a recipe names, as they compute beside what learns.

    Args:
        recipe: with `init.checkpoint`.
        base: its folder.
    """
    folder = checkpoint_folder(str(recipe.init.checkpoint), base)
    return BriVLEncoder(folder, device="cpu", precision="bf16" if fast_bf16(recipe.train) else "fp32")


class Sitting:
    """From last.pt, or from the start, to the recipe's last step or to where it is stopped.

    Args:
        run: folder of the run.
        cfg: `[train]` of the recipe.
        learner: what learns.
        groups: of the optimiser.
        title: of the bar.
    """

    def __init__(self, run: Path, cfg: BesideTraining, learner: Learner, groups: list[Group], title: str) -> None:
        self.run, self.cfg, self.learner, self.title = run, cfg, learner, title
        self.bf16 = fast_bf16(cfg)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.step, self.best = load_state(run / LAST, learner, self.optimizer, torch.device("cpu"))

    def go(self, stop_after: int | None = None) -> None:
        """Trains, logs, measures and saves."""
        cfg = self.cfg
        last = min(cfg.steps, stop_after or cfg.steps)
        trim_log(self.run / "log.jsonl", self.step or -1)
        values: dict[str, list[float]] = {}
        since = time.perf_counter()
        with Stop() as stop, Bar(self.title, cfg.steps, self.step) as bar, (self.run / "log.jsonl").open("a") as log:
            while self.step < last and not stop.asked:
                value = self._update()
                for name, part in {"loss": value, **self.learner.parts}.items():
                    values.setdefault(name, []).append(part)
                due = self.step % cfg.eval_every == 0 or self.step == last or bool(stop.asked)
                bar.to(self.step, f"loss {value:.3f}")
                if self.step % 20 == 0 or due:
                    each = (time.perf_counter() - since) / len(values["loss"])
                    line: dict[str, Any] = {"step": self.step, "s": round(each, 2)}
                    line |= {name: round(sum(some) / len(some), 4) for name, some in values.items()}
                    if due and not stop.asked:
                        line |= self.measure()
                        bar.say(f"step {self.step}: {json.dumps(line, ensure_ascii=False)}")
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    if due:
                        plot(self.history(), self.run / "curves.png", "loss")
                    values, since = {}, time.perf_counter()
                if due:
                    save_state(self.run / LAST, self.learner, self.optimizer, self.step, self.best)
        if stop.asked and self.step < last:
            raise SystemExit(128 + stop.asked)

    def _update(self) -> float:
        """One update; its loss. Raises: NotFiniteError."""
        cfg = self.cfg
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_at(self.step, cfg.steps, cfg.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.fast.train()
        loss = self.learner.loss(self.step, bf16=self.bf16)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss is {value} at step {self.step}: lower train.lr, or set train.bf16=false")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], cfg.clip_grad)
        self.optimizer.step()
        self.learner.follow(self.step)
        self.step += 1
        return value

    def history(self) -> list[dict[str, Any]]:
        """What log.jsonl says, as `train.run.curves.plot` takes it."""
        texts = (self.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [{**line, "recall": self.curves(line)} for line in map(json.loads, texts)]

    def curves(self, line: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Title → curve → value, of a line of the log in which figures were measured."""
        return {}

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Figures of the average, for the log; the best one so far is written."""


def fast_bf16(cfg: BesideTraining) -> bool:
    """Whether a run computes in bfloat16."""
    return has_fast_bf16(torch.device("cpu")) if cfg.bf16 is None else cfg.bf16
