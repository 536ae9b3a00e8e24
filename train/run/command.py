"""The command line of a training: a recipe, what is changed in it, and where to end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from train.recipe import Common, read_recipe

R = TypeVar("R", bound=Common)


def asked(doc: str | None, kind: type[R], argv: list[str] | None) -> tuple[R, Path, int | None]:
    """Reads it.

    Args:
        doc: the module's docstring, for --help.
        kind: of the recipe.
        argv: arguments; None: the process's.

    Returns:
        The recipe, its folder, and the step to end at, None for the recipe's last one.

    Raises:
        UsageError: the recipe is wrong.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--stop-after", type=int, help="end at this step (the schedule stays)")
    args = parser.parse_args(argv)
    return read_recipe(args.recipe, args.set, kind), args.recipe.resolve().parent, args.stop_after
