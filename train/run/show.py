"""What a run says while it works: a bar in a terminal, plain lines elsewhere (a log file, `nohup`, a scheduler)."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0  # seconds between plain lines


class Bar:
    """How far something is; `to` moves it, `say` prints a line that stays."""

    def __init__(self, title: str, total: int, done: int = 0, *, shown: bool = True) -> None:
        """`shown`: False in all processes of a run but the first."""
        self.title, self.total, self.shown = title, total, shown
        self.console = Console()
        self._first, self._since, self._told = done, time.monotonic(), time.monotonic()
        self._bar: Progress | None = None
        if shown and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(title, total=total, completed=done)

    def __enter__(self) -> Bar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def to(self, done: int, said: str = "", *, now: bool = False) -> None:
        """`said`: how it goes, in a few words. A plain line is due after `EVERY` seconds, at the end, or `now`."""
        if self._bar:
            self._bar.update(self._task, completed=done, description=said or self.title)
        elif self.shown and (now or done >= self.total or time.monotonic() - self._told >= EVERY):
            self._told = time.monotonic()
            left = (self._told - self._since) / max(done - self._first, 1) * (self.total - done)
            parts = [f"{self.title}: {done:,} of {self.total:,}", said]
            parts.append(f"{timedelta(seconds=round(left))} left" if done < self.total else "")
            self.say(" · ".join(part for part in parts if part))

    def say(self, line: str) -> None:
        if not self.shown:
            return
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)
