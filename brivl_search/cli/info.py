"""Verbs that look at an index, or show one: info, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brivl_search.cli.app import app, json_wanted, load_for
from brivl_search.cli.options import DEFAULT_INDEX, DeviceOption, IndexOption, ReportOption
from brivl_search.errors import BrivlSearchError


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
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="Where the contact sheet is written.")] = Path(
        "demo.html"
    ),
    device: DeviceOption = "auto",
) -> None:
    """Index photographs of scikit-image and scikit-learn, and search them."""
    from brivl_search.cli import texts
    from brivl_search.cli.demo import QUERIES, Answered, answers_table, photo_folders, short
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.run import build_index as build
    from brivl_search.output import Bar, say, show, write_contact_sheets
    from brivl_search.search.engine import Engine, SearchOptions
    from brivl_search.search.queries import compose

    folders = photo_folders()
    with Bar() as bar:
        report = build(folders, index, load_for(index, None, device), BuildOptions(), bar)
    say(texts.demo_indexed(report.seen, str(index)))
    engine = Engine(index, device=device, stays=True)
    found = engine.query_many([compose(one.text) for one in QUERIES], SearchOptions(2))
    answers = []
    for question, hits in zip(QUERIES, found, strict=True):
        if isinstance(hits, BrivlSearchError):
            raise hits
        answers.append(Answered.of(question, hits))
    show(answers_table(answers))
    here = sum(one.right for one in answers if one.question.right), sum(bool(one.question.right) for one in answers)
    gone = sum(one.right for one in answers) - here[0], len(answers) - here[1]
    typer.echo(texts.demo_judged(*here, *gone))
    write_contact_sheets(html, "brivl-search demo", [(one.question.text, one.hits) for one in answers])
    say(texts.demo_ended(short(str(html)), str(index)))
