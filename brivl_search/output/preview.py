"""`--preview`: thumbnails in the terminal, by textual-image: sixel, kitty's graphics, or half blocks in colour."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from brivl_search.display import harmless
from brivl_search.errors import BrivlSearchError, DependencyError, ImageError, UsageError, install_hint
from brivl_search.output.formats import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from brivl_search.search.engine import Hit

_GRAPHICS_CELLS = 18  # of a thumbnail's longer side; a half block is a pixel or two, so those need more
_BLOCK_CELLS = 24
_GAP = 2
_SIDE = 400  # pixels that are handed to the terminal's side of things


def preview_hits(hits: Sequence[Hit]) -> None:
    """Prints a thumbnail of every hit, several in a row, with its rank, its match (else score) and its name.

    Raises:
        UsageError: stdout is no terminal, or shows no colour and no graphics.
        DependencyError: textual-image is not installed.
    """
    if not sys.stdout.isatty():
        raise UsageError("--preview draws in a terminal, and stdout is none: leave it out, or write a page with --html")
    from rich.console import Console

    console = Console()
    with _questions_to_the_terminal():
        renderable = _renderable(console)
        try:
            console.print(_grid(hits, renderable, console.width))
        except BrivlSearchError:
            raise
        except Exception as error:  # what a terminal answers is beyond the library, and beyond us
            raise BrivlSearchError(f"--preview: this terminal shows no pictures ({error}): use --html") from error


def _renderable(console: Console) -> Any:
    """The library's class for what this terminal can do; it asks the terminal when it is imported."""
    no_colours = "--preview needs a terminal with colours or graphics (TERM, NO_COLOR): use --html"
    if console.is_dumb_terminal:
        raise UsageError(no_colours)
    try:
        from textual_image import renderable
    except ImportError as error:
        raise DependencyError(f"--preview needs textual-image: {install_hint('preview')}") from error
    in_blocks = renderable.Image not in (renderable.SixelImage, renderable.TGPImage)
    if in_blocks and (console.color_system is None or console.no_color):
        raise UsageError(no_colours)
    return renderable.HalfcellImage if in_blocks else renderable.Image


def _grid(hits: Sequence[Hit], renderable: Any, width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    cells = _BLOCK_CELLS if renderable.__module__.endswith("halfcell") else _GRAPHICS_CELLS
    cells = max(1, min(cells, width - _GAP))
    columns = max(1, width // (cells + _GAP))
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    for _ in range(columns):
        grid.add_column(width=cells)
    for start in range(0, len(hits), columns):
        row = hits[start : start + columns]
        grid.add_row(*(_picture(hit, renderable, cells) for hit in row))
        grid.add_row(*(Text(_label(hit), no_wrap=True, overflow="ellipsis") for hit in row))
        grid.add_row()
    return grid


def _picture(hit: Hit, renderable: Any, cells: int) -> Any:
    from PIL import Image
    from rich.text import Text

    from brivl_search.corpus.thumbnails import thumbnail

    try:
        picture = Image.fromarray(thumbnail(hit.path, _SIDE))
    except ImageError as error:
        return Text(f"[{harmless(error.reason)}]", style="dim")
    if picture.width >= picture.height:
        return renderable(picture, width=cells, height="auto")
    return renderable(picture, width="auto", height=max(1, cells // 2))  # cells are about twice as high as wide


def _label(hit: Hit) -> str:
    found = f"{hit.score:.3f}" if hit.match is None else f"{hit.match:.0%}"
    alike = f" +{len(hit.duplicates)}" if hit.duplicates else ""
    name = one_line(hit.text) if hit.text else harmless(os.path.basename(hit.path))
    return f"{hit.rank}  {found}{alike}\n{name}"


@contextlib.contextmanager
def _questions_to_the_terminal() -> Iterator[None]:
    """The library asks the terminal through stdin what it can do, and breaks where stdin is a file or a pipe.

    Without a stdin it falls back to half blocks.
    """
    before = sys.__stdin__
    if before is not None and not (not before.closed and before.isatty()):
        setattr(sys, "__stdin__", None)  # noqa: B010 - final to a type checker
    try:
        yield
    finally:
        setattr(sys, "__stdin__", before)  # noqa: B010
