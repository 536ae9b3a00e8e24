"""The verb that finds photos of a library that are there more than once: duplicates."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from brivl_search.cli.app import app
from brivl_search.cli.options import DEFAULT_INDEX, IndexOption, Quiet
from brivl_search.errors import UsageError


class DuplicateKind(StrEnum):
    exact = "exact"
    same = "same"
    similar = "similar"


class GroupFormat(StrEnum):
    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


@app.command()
def duplicates(
    kind: Annotated[
        DuplicateKind,
        typer.Option("--kind", help="exact: equal bytes; same: also saved again or resized; similar: also --alike."),
    ] = DuplicateKind.same,
    alike: Annotated[
        float | None, typer.Option("--alike", min=0.5, max=1.0, help="Cosine for --kind similar [default: 0.97].")
    ] = None,
    form: Annotated[
        GroupFormat | None, typer.Option("--format", help="table, json, jsonl (default in a pipe) or csv.")
    ] = None,
    others0: Annotated[
        bool,
        typer.Option("--print-others0", help="Only the files beside the best of each group, for xargs -0."),
    ] = False,
    index: IndexOption = DEFAULT_INDEX,
    quiet: Quiet = False,
) -> None:
    """Find photos that are there more than once, the best of each group first. Nothing is changed or deleted."""
    if alike is not None and kind is not DuplicateKind.similar:
        raise UsageError("--alike is for --kind similar: add it")
    if others0 and form is not None:
        raise UsageError("--print-others0 has no --format: give one of the two")
    from brivl_search.index import IndexReader
    from brivl_search.output import Bar, say, warn
    from brivl_search.output.console import default_format
    from brivl_search.output.duplicates import print_groups, print_others
    from brivl_search.search.dedupe import ALIKE
    from brivl_search.search.duplicates import find, spare

    with IndexReader.open(index) as reader, Bar(quiet=quiet) as bar:
        bar.phase("compared", reader.count("image") * (2 if kind is DuplicateKind.similar else 1))
        found = find(reader, kind.value, ALIKE if alike is None else alike, bar.advance)
        for line in reader.damage:
            warn(line)
    if found.unhashed and kind is not DuplicateKind.exact:
        warn(f"{found.unhashed:,} photos have no perceptual hash, from an older version: build-index into a new folder")
    others = sum(len(group.others) for group in found.groups)
    if others0:
        files = [photo.path for group in found.groups for photo in spare(group)]
        print_others(files)
        if len(files) < others:
            warn(
                f"{others - len(files):,} are left out: changed since, in an archive, or links to the best; sync first"
            )
    elif form is GroupFormat.json:
        typer.echo(json.dumps([group.to_dict(number) for number, group in enumerate(found.groups, 1)], indent=2))
    else:
        print_groups(found.groups, form.value if form else default_format())
    if not quiet:
        say(f"{len(found.groups):,} groups, {others:,} photos beside the best, of {found.photos:,}")
