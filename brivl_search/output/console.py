"""Lines and tables, and what makes text from outside harmless to a terminal."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from brivl_search.display import elided, harmless, nearby
from brivl_search.output.words import as_options

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from brivl_search.corpus.walk import Skipped

SHOWN = 5  # examples named of each kind of trouble
BAR_CELLS = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@functools.cache
def stderr_console() -> Console:
    """The one console on stderr, so that a progress bar and the lines beside it know of each other."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Chatter, on stderr."""
    stderr_console().print(_lines(line))


def warn(line: str) -> None:
    """A warning, on stderr."""
    from rich.text import Text

    stderr_console().print(Text.assemble(("warning: ", "yellow"), _lines(line)))


def _lines(text: str) -> Text:
    from rich.text import Text

    return Text("\n".join(map(harmless, as_options(text).split("\n"))))


def print_skips(skipped: Sequence[Skipped], *, verbose: bool) -> None:
    """Why files were passed over, on stderr: each reason with its count and examples (`verbose`: all of them)."""
    for reason, count in Counter(skip.reason for skip in skipped).most_common():
        warn(f"{count:,} skipped: {reason}")
        skips = [skip for skip in skipped if skip.reason == reason]
        for skip in skips if verbose else skips[:SHOWN]:
            say(f"    {harmless(skip.path)}" + (f"  ({skip.detail})" if skip.detail else ""))
        if count > SHOWN and not verbose:
            say(f"    ... and {count - SHOWN:,} more (-v names them all)")


class PathCell:
    """A path in a table: relative or from `~`, on one line, elided in the middle where the column is too narrow.

    Where stdout is no terminal, tables are as wide as they need, and no path is elided.

    Args:
        path: of a file, a folder, or an image in a container.
        note: stands behind the path and is never left out.
    """

    LEAST = 16  # cells that a column leaves a path

    def __init__(self, path: str, note: str = "") -> None:
        self.path, self.note = harmless(nearby(path)), note

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        note, whole = cell_len(self.note), cell_len(self.path)
        return Measurement(min(whole, self.LEAST) + note, whole + note)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.cells import cell_len
        from rich.text import Text

        room = max(options.max_width - cell_len(self.note), 1)
        yield Text.assemble(elided(self.path, room, cell_len), (self.note, "dim"), no_wrap=True, overflow="ellipsis")


def table(title: str | None = None) -> Table:
    """An empty table in the house's style; `title` is plain text."""
    from rich.table import Table
    from rich.text import Text

    plain = None if title is None else Text(harmless(title))
    return Table(title=plain, title_justify="left", header_style="bold", box=None, pad_edge=False)


def show(renderable: Any) -> None:
    """Prints to stdout, never narrower than the content where stdout is not a terminal."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(renderable)


def match_bar(probability: float) -> Text:
    """A probability as a percentage and a bar of eighths of blocks, which can be read without colour."""
    from rich.text import Text

    eighths = round(min(max(probability, 0.0), 1.0) * 8 * BAR_CELLS)
    bar = _EIGHTHS[-1] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    if not encodable(_EIGHTHS):
        bar = "#" * round(eighths / 8)
    return Text.assemble(f"{probability:4.0%} ", (bar.ljust(BAR_CELLS), "green"))


def default_format() -> str:
    """A table for eyes, JSON lines for pipes."""
    return "table" if sys.stdout.isatty() else "jsonl"


def encodable(text: str) -> bool:
    """Whether stdout can write this text as it is."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def human_bytes(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
