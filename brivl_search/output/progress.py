"""One progress bar on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from brivl_search.output.console import say, stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Bar:
    """One progress bar on stderr with the true total, speed and time left (implements `build.Progress`).

    Where stderr is no terminal, a line per phase takes its place.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.lines = not quiet and not stderr_console().is_terminal
        self._bar = _rich_bar(disable=quiet or self.lines)
        self._task: Any = None

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str, total: int | None) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=total, unit=name)
        if self.lines:
            say(f"{name}: {total:,}" if total is not None else f"{name} ...")

    def advance(self, steps: int) -> None:
        if self._task is not None:
            self._bar.advance(self._task, steps)

    def note(self, line: str) -> None:
        """What the phase is at, beside its bar; not worth a line of its own where there is no bar."""
        if self._task is not None:
            self._bar.update(self._task, description=line)


def _rich_bar(*, disable: bool) -> RichProgress:
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        """Steps per second, in the phase's own unit."""

        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None or task.total is None else f"{speed:,.0f} {task.fields.get('unit', '')}/s")

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=stderr_console(),
        transient=True,
        disable=disable,
    )
