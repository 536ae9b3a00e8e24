"""The verb that measures: eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brivl_search.cli.app import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    IndexOption,
    Quiet,
    ReportOption,
    app,
    caption_fields,
    json_wanted,
)


@app.command("eval")
def evaluate(
    recall_at: Annotated[str, typer.Option("--recall-at", metavar="K,K,...", help="Cut-offs.")] = "1,5,10",
    index: IndexOption = DEFAULT_INDEX,
    dataset: Annotated[
        Path | None, typer.Option(help="Measure on this folder (images and captions.jsonl) instead of an index.")
    ] = None,
    captions: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="Which captions [default: all / zh,en,captions].")
    ] = None,
    form: ReportOption = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure recall@k, text to image and image to text, over known caption pairs."""
    from brivl_search import evaluation
    from brivl_search.output import Bar
    from brivl_search.reports import print_evaluation

    ks = evaluation.parse_ks(recall_at)
    if dataset is not None:
        from brivl_search.corpus.captions import load_dataset
        from brivl_search.encoders import DEFAULT, load_encoder

        data = load_dataset(dataset, caption_fields(captions))
        loaded = load_encoder(encoder or DEFAULT, device=device)
        with Bar(quiet=quiet) as bar:
            bar.phase("images and captions", len(data.images) + sum(map(len, data.captions)))
            result = evaluation.evaluate_dataset(data, loaded, ks, bar.advance)
    else:
        from brivl_search.index import IndexReader, gpu

        gpu.choose(device)
        result = evaluation.evaluate_index(IndexReader.open(index), ks, caption_fields(captions))
    if json_wanted(form):
        typer.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
    else:
        print_evaluation(result)
