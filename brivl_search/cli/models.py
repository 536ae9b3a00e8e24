"""The verbs of `models`: what encoders there are, and what to do with checkpoints."""

from __future__ import annotations

import typer

from brivl_search.cli.app import app

models = typer.Typer(
    name="models",
    help="Encoders: what is known and what is on disk; checkpoints from elsewhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models)


@models.callback()
def _group() -> None:
    pass
