"""The verb that measures: eval."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app, caption_fields, json_wanted
from brivl_search.cli.options import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    Encoding,
    ImagesOption,
    IndexOption,
    LayoutOption,
    Quiet,
    ReportOption,
    RerankTop,
    RerankWith,
    SplitOption,
    TruncateOption,
)
from brivl_search.errors import UsageError


class RecallKind(StrEnum):
    any = "any"
    diagonal = "diagonal"
    share = "share"


@app.command("eval")
def evaluate(
    recall_at: Annotated[str, typer.Option("--recall-at", metavar="K,K,...", help="Cut-offs.")] = "1,5,10",
    recall: Annotated[
        RecallKind,
        typer.Option(help="Found at k: any true partner; the own one of 1:1 pairs; the share of true partners."),
    ] = RecallKind.any,
    index: IndexOption = DEFAULT_INDEX,
    dataset: Annotated[
        Path | None, typer.Option(help="Measure on this folder or annotation file instead of an index.")
    ] = None,
    dataset_format: LayoutOption = None,
    split: SplitOption = None,
    images: ImagesOption = None,
    encoding: Encoding = None,
    captions: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="Which captions [default: all / zh,en,captions].")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="ENCODER", help="Measure this encoder beside, on the same --dataset; may be repeated."),
    ] = None,
    ci: Annotated[float, typer.Option("--ci", metavar="PERCENT", help="Level of the confidence intervals.")] = 95.0,
    no_ci: Annotated[bool, typer.Option("--no-ci", help="No confidence intervals.")] = False,
    per_query: Annotated[
        Path | None, typer.Option("--per-query", metavar="FILE.jsonl", help="Write every query's ranks here.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with curves and examples here.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write files for Chinese-CLIP's scoring scripts here.")
    ] = None,
    rerank_with: RerankWith = None,
    rerank_top: RerankTop = 32,
    form: ReportOption = None,
    encoder: EncoderOption = None,
    truncate_dim: TruncateOption = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure recall both ways, over known caption pairs."""
    if compare and dataset is None:
        raise UsageError("--compare needs --dataset FOLDER: an index holds the vectors of one encoder only")
    if truncate_dim is not None and dataset is None:
        raise UsageError("--truncate-dim needs --dataset FOLDER: an index holds vectors of the size it was built with")
    if dataset is None and (dataset_format or split or images or encoding):
        raise UsageError("--dataset-format, --split, --images and --encoding say how to read --dataset; give it too")
    if rerank_with is not None and dataset is not None:
        raise UsageError("--rerank-with re-orders what an index answers: build one, and leave out --dataset")
    if not 0 < ci < 100:
        raise UsageError(f"--ci {ci:g}: give a level between 0 and 100, such as --ci 95, or --no-ci")
    for option, file in (("--per-query", per_query), ("--report", report)):
        if file is not None:
            _check_file(option, file)
    if predictions is not None and predictions.exists() and not predictions.is_dir():
        raise UsageError(f"--predictions {predictions}: it is a file; name a folder")
    from brivl_search import evaluation
    from brivl_search.metrics import Bootstrap
    from brivl_search.output import Bar, say
    from brivl_search.output.evaluation import print_evaluation

    ks = evaluation.parse_ks(recall_at)
    options = evaluation.EvaluationOptions(recall.value, None if no_ci else Bootstrap(ci))
    others: list[evaluation.Evaluation] = []
    if dataset is not None:
        from brivl_search.corpus.dataset import load_dataset
        from brivl_search.encoders import DEFAULT, load_encoder

        fields = caption_fields(captions)
        data = load_dataset(dataset, fields, format=dataset_format, split=split, images=images, encoding=encoding)
        loaded = [load_encoder(encoder or DEFAULT, device=device, truncate_dim=truncate_dim)]
        loaded += [load_encoder(name, device=device) for name in compare or []]
        texts = len(data.images) if recall is RecallKind.diagonal else len(data.queries()[0])
        with Bar(quiet=quiet) as bar:
            for one in loaded:
                bar.phase("images and captions", len(data.images) + texts)
                others.append(evaluation.evaluate_dataset(data, one, ks, bar.advance, options=options))
        result, calibration = others.pop(0), loaded[0].calibration
    else:
        from brivl_search.index import IndexReader, gpu
        from brivl_search.search.engine import Engine

        gpu.choose(device)
        reader = IndexReader.open(index)
        reranker = None if rerank_with is None else Engine(index, encoder=encoder, device=device).reranker(rerank_with)
        result = evaluation.evaluate_index(
            reader, ks, caption_fields(captions), options=options, reranker=reranker, rerank_top=rerank_top
        )
        calibration = _calibration_of(reader, encoder) if report is not None else None
    compared = evaluation.compare(result, others, Bootstrap(ci)) if others else []
    written: list[Path] = []
    if per_query is not None:
        evaluation.write_per_query(per_query, [result, *others])
        written.append(per_query)
    if predictions is not None:
        written += evaluation.write_predictions(predictions, result)
    if report is not None:
        from brivl_search.evaluation.page import write_page

        write_page(report, result, calibration, list(zip(others, compared, strict=True)))
        written.append(report)
    if json_wanted(form):
        typer.echo(json.dumps(_json(result, others, compared), ensure_ascii=False, indent=2))
    else:
        print_evaluation(result, list(zip(others, compared, strict=True)))
    if written and not quiet:
        say("written: " + ", ".join(map(str, written)))


def _check_file(option: str, file: Path) -> None:
    """Says so before the work and not after it."""
    if file.is_dir():
        raise UsageError(f"{option} {file}: it is a folder; name a file")
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}; make it first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{option} {file}: you may not write there")


def _calibration_of(reader: Any, encoder: str | None) -> Any:
    """The calibration of the encoder an index was built with; None, with a warning, where it is not at hand."""
    from brivl_search.encoders import load_encoder
    from brivl_search.errors import EncoderError
    from brivl_search.output import warn

    built_with = reader.info.encoder
    try:
        loaded = load_encoder(encoder or built_with.name, device="cpu")
    except EncoderError as error:
        warn(f"no calibration plot: {error}")
        return None
    if loaded.fingerprint != built_with.fingerprint:
        warn(f"no calibration plot: the index is of another encoder than {loaded.name}")
        return None
    return loaded.calibration


def _json(result: Any, others: list[Any], compared: list[Any]) -> dict[str, Any]:
    out: dict[str, Any] = result.to_dict()
    if others:
        pairs = zip(others, compared, strict=True)
        out["compared"] = [{**other.to_dict(), "comparison": found.to_dict()} for other, found in pairs]
    return out
