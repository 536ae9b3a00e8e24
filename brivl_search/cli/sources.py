"""Verbs of `sources`: what an index covers, and where a folder is now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app, json_wanted
from brivl_search.cli.options import DEFAULT_INDEX, IndexOption, Quiet, ReportOption
from brivl_search.errors import UsageError

sources = typer.Typer(
    name="sources",
    help="List what an index covers: folders, datasets, single files. `move` says where a folder is now.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(sources)


@sources.callback()
def list_sources(ctx: typer.Context, index: IndexOption = DEFAULT_INDEX, form: ReportOption = None) -> None:
    """List what an index covers: folders, datasets, single files. `move` says where a folder is now."""
    ctx.obj = index
    if ctx.invoked_subcommand is not None:
        return
    from brivl_search.ingest.coverage import counted
    from brivl_search.output.index import source_dict, sources_table

    found = counted(index)
    if json_wanted(form):
        typer.echo(json.dumps([source_dict(*one) for one in found], indent=2, ensure_ascii=False))
    else:
        from brivl_search.output import show

        show(sources_table(found))


@sources.command()
def move(
    ctx: typer.Context,
    places: Annotated[
        list[Path],
        typer.Argument(metavar="OLD NEW", help="A folder of the index, and where it is now; more pairs may follow."),
    ],
    index: Annotated[Path | None, typer.Option("--index", "-i", help="Folder of the index.")] = None,
    quiet: Quiet = False,
) -> None:
    """Say where a folder of the index is now. No picture is embedded again."""
    if len(places) % 2:
        raise UsageError("OLD and NEW belong together: name the old place, and where it is now")
    from brivl_search.ingest.maintenance import move as move_source
    from brivl_search.output import say
    from brivl_search.output.build import say_state

    directory: Any = index or ctx.obj
    pairs = list(zip(places[::2], places[1::2], strict=True))
    done = move_source(directory, *pairs[0], *pairs[1:])
    if not quiet:
        for old, new in pairs:
            say(f"{old} is {new} from now on")
        say_state(directory, done)
