"""The training loop: steps, log, validation, states, and how it ends."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from brivl_search.errors import BrivlSearchError
from train import distributed
from train.data.photos import StepDataset
from train.data.stream import ShardSteps
from train.model.kinds.base import Kind
from train.model.moco import Contrastive
from train.recipe import Recipe
from train.run import average
from train.run.best import Best
from train.run.curves import plot
from train.run.general import General
from train.run.show import Bar
from train.run.state import (
    LAST,
    all_finite,
    check_diverged,
    diverged,
    load_state,
    past_divergence,
    save_state,
    trim_log,
)
from train.run.stop import Stop, deaf
from train.run.validate import Recall, Validation

_FEW = 10  # held-out photos, all of which are among the ten best


@dataclass(frozen=True)
class Session:
    """Where and how a run goes on; `stop_after` ends this sitting at a step, the schedule stays."""

    recipe: Recipe
    run: Path
    kind: Kind
    device: torch.device
    bf16: bool
    stop_after: int | None = None


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero; a factor on every group's rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


class NotFiniteError(BrivlSearchError):
    """The loss or a weight became NaN or infinite. The run goes on once its settings are changed."""


def train_step(
    model: Contrastive, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], session: Session
) -> float:
    """One update from the whole batch, in `accumulate` parts and over all processes; its loss.

    If the loss or a gradient is not finite nothing is updated, and the result is not finite.
    """
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
    norm = float(nn.utils.clip_grad_norm_(parameters, cfg.clip_grad))
    loss = distributed.average(total, device)
    if not math.isfinite(norm) or not math.isfinite(loss):
        return loss if math.isfinite(norm) else norm
    optimizer.step()
    return loss


class Fit:
    """A sitting of a run: from last.pt, or from the start, to the recipe's last step or to where it is stopped."""

    def __init__(
        self,
        model: Contrastive,
        optimizer: torch.optim.Optimizer,
        dataset: StepDataset | ShardSteps,
        validation: Validation,
        general: General,
        session: Session,
    ) -> None:
        """Reads the state. Raises: UsageError."""
        self.model, self.optimizer, self.dataset, self.session = model, optimizer, dataset, session
        self.run, self.cfg, self.first = session.run, session.recipe.train, distributed.is_first()
        self.settings = session.recipe.raw.get("train", {})
        if self.first:
            check_diverged(self.run, self.settings)
        more: dict[str, Any] = {}
        self.general = general
        self.origin = average.weights_of(model.slow, model.online) if self.cfg.average and self.first else {}
        if self.first:
            general.begin(model.slow)
        self.step, best = load_state(self.run / LAST, model, optimizer, session.device, dataset, more)
        kept = without_model(session.recipe.raw)
        self.best = Best(self.run / "checkpoint", session.kind, kept, validation)
        if self.step:
            self.best.go_on(best, more)
        self.window: list[float] = list(more.get("window", []))  # losses since the last line of the log
        self.since = 0  # steps since a state was read or saved
        self.saved = self.step
        self.recall: Recall | None = None
        self.history = trim_log(self.run / "log.jsonl", self.step or -1) if self.first else []
        for line in self.history:
            if "recall" in line:
                self.recall = line["recall"]
            if "kept" in line:  # after the last step of what was then the schedule
                kept_at = line["kept"]
                self.best.score, self.best.step, self.best.share = (kept_at[k] for k in ("score", "step", "share"))

    def go(self) -> None:
        """Trains. The first process writes and shows."""
        cfg, session = self.cfg, self.session
        last = min(cfg.steps, session.stop_after or cfg.steps)
        workers = cfg.workers
        ahead: dict[str, Any] = (
            {"num_workers": workers, "prefetch_factor": 4, "worker_init_fn": deaf} if workers else {}
        )
        # Its own generator: starting a loader draws a number, and the dropout of a resumed run must not see that.
        drawn = range(self.step, last)
        loader = DataLoader(self.dataset, batch_size=None, sampler=drawn, generator=torch.Generator(), **ahead)
        bar = Bar("training", cfg.steps, self.step, shown=self.first)
        with Stop() as stop, bar, (self.run / "log.jsonl").open("a", buffering=1) as log:
            if self.step:
                bar.say(f"{self.run}: goes on from step {self.step} of {cfg.steps}")
            elif self.first:
                self._measure_start(log, bar)
            began, steps = time.perf_counter(), 0
            self.model.train()
            for batch in loader:
                rate = self._step(batch)
                steps += 1
                stopped = distributed.any_of(bool(stop.asked), session.device)
                due = self.step % cfg.eval_every == 0 or self.step == last
                if self.step % 20 == 0 or due:
                    speed = steps * cfg.batch / (time.perf_counter() - began)
                    self._line(log, bar, speed, rate, due=due)
                    began, steps = time.perf_counter(), 0
                if due or stopped or self.step % (cfg.save_every or cfg.eval_every) == 0:
                    self._save()
                if stopped:
                    break
            if self.step == cfg.steps and self.first:
                self._finish(log, bar)
        if self.first:
            self._end(stop, last)
        if stop.asked and self.step < last:
            raise SystemExit(128 + stop.asked)

    def _measure_start(self, log: Any, bar: Bar) -> None:
        """What the towers can before the first step: what comes of training is compared with it."""
        recall = self.best.measure(self.model.slow, 0, final=True)
        general = self.general.measure(self.model.slow)
        if recall or general:
            self.recall = recall
            self._write(log, {"step": 0, "recall": recall, **({"general": general} if general else {})})
        if recall:
            bar.say(f"start: {self.best.validation.name}: {self.best.validation.short(recall)}")
        if 0 < (held := len(self.best.validation.photos)) <= _FEW:
            bar.say(f"start: of {held} held-out photos R@10 is always 100, and little can be told: set hold_out higher")
        if general:
            bar.say(f"start: general: {self.general.short(general)}")

    def _finish(self, log: Any, bar: Bar) -> None:
        """After the last step: averages with the start, and what is left of general knowledge. Once; of a run that was
        killed meanwhile, again."""
        if any("kept" in line and line["step"] == self.step for line in self.history):
            return
        line: dict[str, Any] = {"step": self.step}
        if self.cfg.average and self.best.validation.photos:
            slow, best, within = self.model.slow, self.best, self.cfg.average_within
            tried = average.try_shares(slow, self.origin, self.cfg.average, best, self.general)
            chosen = average.choose(tried, within)
            for text in average.table(tried, chosen):
                bar.say(text)
            line["shares"] = [asdict(one) for one in tried]
            less = within if chosen.share < 1 else 0.0
            if chosen.share and chosen.score > best.score - less:
                best.keep(average.averaged(slow, self.origin, chosen.share), self.step, chosen.recall, chosen.share)
                self.recall = chosen.recall
        elif general := self.general.measure(self.model.slow):
            bar.say(f"step {self.step}: general: {self.general.short(general)}")
            line["general"] = general
        else:
            return
        line["kept"] = {"step": self.best.step, "share": self.best.share, "score": self.best.score}
        self._write(log, line)

    def _step(self, batch: dict[str, Tensor]) -> float:
        """One update; the factor on its learning rates."""
        rate = rate_at(self.step, self.cfg.steps, self.cfg.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        batch = {name: tensor.to(self.session.device, non_blocking=True) for name, tensor in batch.items()}
        loss = train_step(self.model, self.optimizer, batch, self.session)
        if not math.isfinite(loss):
            self._stop_as_not_finite(f"the loss or a gradient is {loss}", self.step + 1)
        self.window.append(loss)
        self.step += 1
        self.since += 1
        return rate

    def _stop_as_not_finite(self, what: str, step: int) -> None:
        # A step after the state may have been finite by chance of its batch alone: it takes two to trust the state.
        then = diverged(self.run, step, self.settings, since=max(self.since - 1, 0)) if self.first else ""
        advice = "lower train.lr, or set train.bf16=false, and give the same command"
        raise NotFiniteError(f"{what} at step {step}: {advice}; {then}")

    def _line(self, log: Any, bar: Bar, speed: float, rate: float, *, due: bool) -> None:
        """A line of the log; where it is due, with the recall."""
        loss = sum(self.window) / len(self.window)
        line: dict[str, Any] = {"step": self.step, "loss": loss, "images_per_s": speed, "rate": rate}
        self.window = []
        if due:
            self._check_weights()
        if due and self.first:
            self.recall = line["recall"] = self.best.measure(
                self.model.slow, self.step, final=self.step == self.cfg.steps
            )
            self.model.train()
            bar.say(f"step {self.step}: {self.best.validation.short(self.recall)}")
        if self.first:  # before the state: what follows the state's step is dropped on resume
            self._write(log, line)
        bar.to(self.step, f"loss {loss:.3f} · {speed:.0f} img/s")

    def _write(self, log: Any, line: dict[str, Any]) -> None:
        log.write(json.dumps(line) + "\n")
        self.history.append(line)

    def _check_weights(self) -> None:
        if not all_finite(self.model, self.optimizer):
            self._stop_as_not_finite("a weight is NaN or infinite", self.step)

    def _save(self) -> None:
        if self.saved == self.step:
            return
        self._check_weights()
        more = {**self.best.state(), "window": self.window}
        save_state(
            self.run / LAST, self.model, self.optimizer, self.step, self.best.score, self.dataset,
            more=more, keep_previous=True,
        )  # fmt: skip
        self.since, self.saved = 0, self.step
        if self.first:
            past_divergence(self.run, self.step)
            plot(self.history, self.run / "curves.png")

    def _end(self, stop: Stop, last: int) -> None:
        if stop.asked and self.step < last:
            name = "Ctrl-C" if stop.asked == signal.SIGINT else signal.Signals(stop.asked).name
            print(f"{self.run}: stopped by {name} at step {self.step}, saved; the same command goes on", flush=True)
            return
        for line in (f"{self.run}: step {self.step} of {self.cfg.steps}", *self.best.report(self.recall, self.step)):
            print(line, flush=True)


def fit(
    model: Contrastive,
    optimizer: torch.optim.Optimizer,
    dataset: StepDataset | ShardSteps,
    validation: Validation,
    general: General,
    session: Session,
) -> None:
    """Trains to the recipe's last step, from last.pt where there is one."""
    Fit(model, optimizer, dataset, validation, general, session).go()


def without_model(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of the recipe goes into a checkpoint's config.json: all but the model, which is there already."""
    return {key: value for key, value in recipe.items() if key != "model"}
