"""Verbs that read an index: query, info, demo."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from brivl_search.cli.app import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    HitFormat,
    IndexOption,
    ReportOption,
    Target,
    app,
    json_wanted,
    load_for,
)
from brivl_search.errors import UsageError


@app.command()
def query(
    text: Annotated[
        str | None, typer.Argument(help="What to look for, in Chinese or English.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Search by this picture: captions if the index has any, else images.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many hits.")] = 10,
    index: IndexOption = DEFAULT_INDEX,
    target: Annotated[
        Target, typer.Option(help="What to find: image, text (captions), or what suits the query.")
    ] = Target.auto,
    form: Annotated[
        HitFormat | None, typer.Option("--format", help="Default: table on a terminal, jsonl in a pipe.")
    ] = None,
    print0: Annotated[bool, typer.Option("-0", "--print0", help="Bare paths ending in NUL, for xargs -0.")] = False,
    exact: Annotated[bool, typer.Option(help="Compare with every row.")] = False,
    nprobe: Annotated[int | None, typer.Option(help="Inverted lists visited [default: tuned].")] = None,
    rerank: Annotated[int | None, typer.Option(help="Candidates scored exactly [default: tuned].")] = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Find images by TEXT, or captions (or similar images) by --image PICTURE."""
    if (text is None) == (image is None):
        raise UsageError('give either a text or --image PICTURE, e.g. brivl-search query "a dog on grass"')
    if top_k < 1:
        raise UsageError(f"--top-k {top_k}: give a whole number from 1 on")
    for name, value in (("--nprobe", nprobe), ("--rerank", rerank)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: give a whole number from 1 on")
    # For one query NumPy's threads wait for each other longer than they work. Read when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from brivl_search.engine import Engine, SearchOptions
    from brivl_search.output import default_format, print_hits, warn

    engine = Engine(index, encoder=encoder, device=device)
    search = SearchOptions(top_k, exact, nprobe, rerank)
    if image is not None:
        hits = engine.by_image(image, search, target=target.value)
    else:
        assert text is not None
        hits = engine.by_text(text, search, target=target.value)
        if cut := engine.cut_tokens(text):
            warn(f"the query is longer than the text tower takes: its last {cut} tokens were not seen")
    for line in engine.reader.damage:
        warn(f"not searched: {line}")
    print_hits(hits, "paths" if print0 else form.value if form else default_format(), nul=print0)


@app.command()
def info(index: IndexOption = DEFAULT_INDEX, form: ReportOption = None) -> None:
    """Show what an index holds: rows, encoder, shards, bytes, how it is searched."""
    from brivl_search.index import IndexReader
    from brivl_search.output import warn
    from brivl_search.reports import info_dict, print_info

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
    """Index the photographs that ship with scikit-image and scikit-learn, and search them in two languages."""
    from brivl_search.build import BuildOptions
    from brivl_search.build import build_index as build
    from brivl_search.demo import QUERIES, photo_folders
    from brivl_search.engine import Engine, SearchOptions
    from brivl_search.output import Bar, hits_table, say, show
    from brivl_search.reports import print_build

    folders = photo_folders()
    with Bar() as bar:
        report = build(folders, index, load_for(index, None, device), BuildOptions(), bar)
    print_build(report, str(index), verbose=False)
    engine = Engine(index, device=device)
    for words in QUERIES:
        show("")
        show(hits_table(engine.by_text(words, SearchOptions(top_k)), title=f'brivl-search query "{words}"'))
    say(f'\nTry your own: brivl-search query "..." --index {index}')
