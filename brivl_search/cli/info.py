"""Verbs that look at an index, or show one: info, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brivl_search.cli.app import app, json_wanted, load_for
from brivl_search.cli.options import DEFAULT_INDEX, DeviceOption, IndexOption, ReportOption


@app.command()
def info(index: IndexOption = DEFAULT_INDEX, form: ReportOption = None) -> None:
    """Show what an index holds and how it is searched."""
    from brivl_search.index import IndexReader
    from brivl_search.output import warn
    from brivl_search.output.index import info_dict, print_info

    with IndexReader.open(index) as reader:
        facts = reader.info
    for line in reader.damage:
        warn(line)
    if json_wanted(form):
        typer.echo(json.dumps(info_dict(facts), indent=2))
    else:
        print_info(facts)


@app.command()
def demo(
    index: IndexOption = Path("indexes/demo"),
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1)] = 3,
    device: DeviceOption = "auto",
) -> None:
    """Index photographs of scikit-image and scikit-learn, and search them."""
    from brivl_search.cli.demo import QUERIES, photo_folders
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.run import build_index as build
    from brivl_search.output import Bar, hits_table, say, show
    from brivl_search.output.build import print_build
    from brivl_search.search.engine import Engine, SearchOptions

    folders = photo_folders()
    with Bar() as bar:
        report = build(folders, index, load_for(index, None, device), BuildOptions(), bar)
    print_build(report, str(index), verbose=False)
    engine = Engine(index, device=device)
    for words in QUERIES:
        show("")
        show(hits_table(engine.by_text(words, SearchOptions(top_k)), title=f'brivl-search query "{words}"'))
    say(f'\nTry your own: brivl-search query "..." --index {index}')
