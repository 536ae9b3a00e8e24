"""The verb that measures: eval."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app, caption_fields, json_wanted
from brivl_search.cli.captioned import NO_PHOTOS, Captioned, takes_captioned
from brivl_search.cli.options import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    IndexOption,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    ReportOption,
    RerankTop,
    RerankWith,
    RuntimeKind,
    RuntimeOption,
    TruncateOption,
)
from brivl_search.errors import UsageError


class RecallKind(StrEnum):
    any = "any"
    diagonal = "diagonal"
    share = "share"


@app.command("eval")
@takes_captioned(
    dataset="Measure on this folder or annotation file instead of an index.",
    captions="Which captions [default: all / zh,en,captions].",
)
def evaluate(
    recall_at: Annotated[str, typer.Option("--recall-at", metavar="K,K,...", help="Cut-offs.")] = "1,5,10",
    recall: Annotated[
        RecallKind,
        typer.Option(help="Found at k: any true partner; the own one of 1:1 pairs; the share of true partners."),
    ] = RecallKind.any,
    index: IndexOption = DEFAULT_INDEX,
    given: Captioned = NO_PHOTOS,
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
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    quiet: Quiet = False,
) -> None:
    """Measure recall both ways, over known caption pairs."""
    dataset = given.dataset
    if compare and dataset is None:
        raise UsageError("--compare needs --dataset FOLDER: an index holds the vectors of one encoder only")
    if truncate_dim is not None and dataset is None:
        raise UsageError("--truncate-dim needs --dataset FOLDER: an index holds vectors of the size it was built with")
    if dataset is None and given.reads:
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
    from brivl_search.encoders.base import has_sides
    from brivl_search.metrics import Bootstrap
    from brivl_search.output import Bar, say
    from brivl_search.output.evaluation import print_evaluation

    ks = evaluation.parse_ks(recall_at)
    options = evaluation.EvaluationOptions(recall.value, None if no_ci else Bootstrap(ci))
    others: list[evaluation.Evaluation] = []
    if dataset is not None:
        from brivl_search.encoders import DEFAULT, load_encoder

        data = given.load()
        computed: dict[str, Any] = {"device": device, "runtime": runtime.value, "precision": precision.value}
        loaded = [load_encoder(encoder or DEFAULT, truncate_dim=truncate_dim, **computed)]
        # What an encoder says of its own precision is what is compared; the options are for the first one.
        loaded += [load_encoder(name, device=device, runtime=runtime.value) for name in compare or []]
        texts = len(data.images) if recall is RecallKind.diagonal else len(data.queries()[0])
        with Bar(quiet=quiet) as bar:
            for one in loaded:
                bar.phase("images and captions", len(data.images) + texts)
                others.append(evaluation.evaluate_dataset(data, one, ks, bar.advance, options=options))
        others = [_judged(one, made.calibration) for one, made in zip(others, loaded, strict=True)]
        result, calibration = others.pop(0), loaded[0].calibration
    else:
        from brivl_search.encoders.calibration import saved
        from brivl_search.index import IndexReader, gpu
        from brivl_search.search.engine import Engine

        gpu.choose(device)
        reader = IndexReader.open(index)
        reranker = None if rerank_with is None else Engine(index, encoder=encoder, device=device).reranker(rerank_with)
        built_with = _encoder_of(reader, encoder, device, report is not None)
        encode = built_with.encode_queries if built_with is not None and has_sides(built_with) else None
        result = evaluation.evaluate_index(
            reader,
            ks,
            caption_fields(given.captions),
            options=options,
            encode=encode,
            reranker=reranker,
            rerank_top=rerank_top,
        )
        calibration = built_with.calibration if built_with is not None else None
        result = _judged(result, calibration or saved(reader.info.encoder.fingerprint))
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


def _judged(result: Any, calibration: Any) -> Any:
    """An evaluation with how far the `match` of its encoder is off; as it was where there is none."""
    from dataclasses import replace

    from brivl_search.evaluation.page.content import reliability, scores_of

    scores = None if calibration is None else scores_of(result.pairs)
    return result if scores is None else replace(result, calibration_error=reliability(scores, calibration).ece)


def _check_file(option: str, file: Path) -> None:
    """Says so before the work and not after it."""
    if file.is_dir():
        raise UsageError(f"{option} {file}: it is a folder; name a file")
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}; make it first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{option} {file}: you may not write there")


def _encoder_of(reader: Any, encoder: str | None, device: str, plot: bool) -> Any:
    """The encoder an index was built with, where it is wanted: for the calibration plot, or to embed captions as
    queries, which only some models of others read differently. None, with a warning, where it is not at hand.
    """
    from brivl_search.encoders import load_encoder
    from brivl_search.encoders.plugins import plugins
    from brivl_search.errors import BrivlSearchError
    from brivl_search.output import warn

    built_with = reader.info.encoder
    name = encoder or built_with.name
    if not (plot or name.startswith("hf:") or name.partition(":")[0] in plugins()):
        return None  # it reads both alike
    lost = "no calibration plot" if plot else "captions are searched with as they are stored"
    try:
        loaded = load_encoder(name, device=device)
    except BrivlSearchError as error:
        warn(f"{lost}: {error}")
        return None
    if loaded.fingerprint != built_with.fingerprint:
        warn(f"{lost}: the index is of another encoder than {loaded.name}")
        return None
    return loaded


def _json(result: Any, others: list[Any], compared: list[Any]) -> dict[str, Any]:
    out: dict[str, Any] = result.to_dict()
    if others:
        pairs = zip(others, compared, strict=True)
        out["compared"] = [{**other.to_dict(), "comparison": found.to_dict()} for other, found in pairs]
    return out
