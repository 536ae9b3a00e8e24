"""What a person or a pipe sees: tables on a terminal, JSON lines, CSV or bare paths elsewhere. Results go to stdout,
everything else to stderr."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from brivl_search.corpus.walk import printable
from brivl_search.engine import Hit

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Chatter, on stderr."""
    errors.print(Text(line))


def warn(line: str) -> None:
    errors.print(Text.assemble(("warning: ", "yellow"), line))


def table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)


def show(renderable: Any) -> None:
    """Prints to stdout, never narrower than the content where stdout is not a terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(renderable)


def default_format() -> str:
    """A table for eyes, JSON lines for pipes."""
    return "table" if sys.stdout.isatty() else "jsonl"


def hits_table(hits: Sequence[Hit], title: str | None = None) -> Table:
    """Rank, score, match where it is known, and what was found."""
    out = table(title)
    out.add_column("#", justify="right")
    out.add_column("score", justify="right")
    matches = any(hit.match is not None for hit in hits)
    if matches:
        out.add_column("match", justify="right")
    texts = any(hit.kind == "text" for hit in hits)
    if texts:
        out.add_column("caption", overflow="fold")
    out.add_column("image", overflow="fold")
    for hit in hits:
        caption = [Text(hit.text or "")] if texts else []
        match = [f"{hit.match:.0%}" if hit.match is not None else ""] if matches else []
        out.add_row(str(hit.rank), f"{hit.score:.3f}", *match, *caption, Text(printable(hit.path)))
    return out


def print_hits(hits: Sequence[Hit], form: str, *, nul: bool = False) -> None:
    """Prints hits as `form`: table, jsonl, csv or paths (`nul`: paths end with NUL, for xargs -0)."""
    if form == "table":
        show(hits_table(hits))
    elif form == "jsonl":
        for hit in hits:
            # A name that is not UTF-8 cannot be printed raw: JSON escapes keep it exactly.
            line = json.dumps(hit.to_dict(), ensure_ascii=False)
            sys.stdout.write((line if _encodable(line) else json.dumps(hit.to_dict())) + "\n")
    elif form == "csv":
        rows = [hit.to_dict() for hit in hits]
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows[0] if rows else ["rank", "score", "path"])
        for row in rows:
            writer.writerow([printable(v) if isinstance(v, str) else v for v in row.values()])
    else:
        sys.stdout.flush()
        for hit in hits:
            sys.stdout.buffer.write(os.fsencode(hit.path) + (b"\0" if nul else b"\n"))
    sys.stdout.flush()


def _encodable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Rate(ProgressColumn):
    """Steps per second, in the phase's own unit."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None or task.total is None else f"{speed:,.0f} {task.fields.get('unit', '')}/s")


class Bar:
    """One progress bar on stderr with the true total, speed and time left (implements `build.Progress`).

    Where stderr is no terminal, a line per phase takes its place.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.lines = not quiet and not errors.is_terminal
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
            disable=quiet or self.lines,
        )
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


def human_bytes(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
