"""The longer things the command line prints: what a build did, what an index holds, an evaluation, a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from brivl_search.display import printable
from brivl_search.evaluation import LIST_DEPTH, Comparison, DirectionName, Evaluation
from brivl_search.index import CommitReport, IndexInfo, Modality, ModalityInfo, Tuning, VerifyReport
from brivl_search.ingest.report import BuildReport
from brivl_search.metrics import Recall
from brivl_search.output import human_bytes, print_skips, say, show, table, warn

SHOWN = 5  # examples named of each kind of trouble


def print_build(report: BuildReport, directory: str, *, verbose: bool) -> None:
    """The summary of a build, on stderr: counts, every skip reason with examples, what the index now holds."""
    print_skips(report.skipped, verbose=verbose)
    if report.bad_captions:
        warn(f"{len(report.bad_captions):,} caption lines not used")
        for line in report.bad_captions if verbose else report.bad_captions[:SHOWN]:
            say(f"    {printable(line)}")
        if len(report.bad_captions) > SHOWN and not verbose:
            say(f"    ... and {len(report.bad_captions) - SHOWN:,} more (-v names them all)")
    if report.cut_captions:
        warn(f"{report.cut_captions:,} captions are longer than the text tower takes; their ends were not seen")
    if report.kept_unreadable:
        warn(f"{report.kept_unreadable:,} files cannot be read now; what the index holds of them is kept")
    counts = [
        (report.embedded, "embedded"),
        (report.reused, "reused (duplicate, renamed or touched)"),
        (report.unchanged, "unchanged"),
        (report.vanished, "vanished and removed"),
        (len(report.skipped), "skipped"),
    ]
    say(
        f"{report.found:,} images found: " + ", ".join(f"{n:,} {what}" for n, what in counts if n or what == "embedded")
    )
    if report.captions or report.captions_removed:
        removed = f", {report.captions_removed:,} removed" if report.captions_removed else ""
        say(f"{report.captions:,} captions: {report.captions_embedded:,} embedded{removed}")
    if report.embed_seconds and report.embedded:
        say(f"{report.embedded / report.embed_seconds:,.1f} images/s over {report.embed_seconds:,.1f} s")
    if report.commit is not None:
        for note in report.commit.notes:
            say(note)
        say_state(directory, report.commit)


def say_state(directory: Path | str, commit: CommitReport) -> None:
    """What the index holds after a commit: the last line of every verb that changes one."""
    images, captions = f"{commit.image.live:,} images", f"{commit.text.live:,} captions"
    say(f"index {directory}: {images}, {captions}, generation {commit.generation}")


def info_dict(info: IndexInfo) -> dict[str, Any]:
    """What `info --format json` prints."""

    def side(part: ModalityInfo) -> dict[str, Any]:
        tuning = part.tuning
        return {
            "rows": part.rows,
            "removed": part.removed,
            "bytes": part.bytes,
            "index_type": part.kind,
            "nlist": part.nlist,
            "codec": part.codec,
            "pq_bytes": part.m,
            "nprobe": tuning.nprobe if tuning else None,
            "rerank": tuning.rerank if tuning else None,
            "recall_at_10_of_exact": tuning.recall if tuning else None,
            "recall_target": tuning.target if tuning else None,
            "queries_per_second": tuning.qps if tuning else None,
            "tuning_queries": tuning.queries if tuning else 0,
            "tuning_kind": tuning.kind if tuning else None,
            "shards": [
                {"name": s.name, "rows": s.rows, "bytes": s.bytes, "kind": s.kind, "checksum": s.checksum}
                for s in part.shards
            ],
        }

    return {
        "directory": str(info.directory),
        "format_version": info.format_version,
        "generation": info.generation,
        "encoder": {"name": info.encoder.name, "fingerprint": info.encoder.fingerprint, "dim": info.encoder.dim},
        "folders": [{"given": given, "absolute": absolute} for given, absolute in info.roots],
        "image": side(info.image),
        "text": side(info.text),
    }


def print_info(info: IndexInfo) -> None:
    """What an index holds, for people."""
    facts = table()
    facts.show_header = False
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("index", Text(f"{info.directory}  (format {info.format_version}, generation {info.generation})"))
    facts.add_row("encoder", Text(f"{info.encoder.name}  {info.encoder.dim} dimensions  {info.encoder.fingerprint}"))
    for _, absolute in info.roots:
        facts.add_row("folder", Text(printable(absolute)))
    for name, part in (("images", info.image), ("captions", info.text)):
        facts.add_row(name, f"{part.rows:,} rows, {part.removed:,} removed, {human_bytes(part.bytes)}")
        if part.shards:
            facts.add_row("", _search_facts(part))
        for shard in part.shards:
            facts.add_row("", f"{shard.name}  {shard.rows:,} rows  {human_bytes(shard.bytes)}  {shard.kind}")
    show(facts)


def _search_facts(part: ModalityInfo) -> str:
    if not part.nlist:
        return "exact search over float16 rows (too few rows to train IVF-PQ honestly, or asked for)"
    text = f"IVF-PQ ({part.codec}), nlist {part.nlist}, {part.m} bytes a row, trained on {part.trained_rows:,} rows"
    if part.tuning is not None:
        text += f"; nprobe {part.tuning.nprobe}, {part.tuning.rerank} re-ranked exactly; "
        if part.tuning.recall is None:
            text += "recall not measured"
        else:
            measured = f"{part.tuning.recall:.3f} on {part.tuning.queries:,} {part.tuning.kind} queries"
            text += f"recall@10 of exact search {measured}"
        if part.tuning.qps is not None:
            text += f", {part.tuning.qps:,.0f} queries/s one by one"
    return text


def tuning_table(found: Mapping[Modality, Tuning]) -> Table:
    """What `tune` stored."""
    out = table()
    for name in ("searched", "nprobe", "re-ranked", "recall@10 of exact", "target", "queries/s", "queries"):
        out.add_column(name, justify="left" if name == "searched" else "right")
    for modality, tuning in found.items():
        out.add_row(
            {"image": "images", "text": "captions"}[modality],
            str(tuning.nprobe),
            str(tuning.rerank),
            "" if tuning.recall is None else f"{tuning.recall:.4f}",
            f"{tuning.target:g}",
            "" if tuning.qps is None else f"{tuning.qps:,.0f}",
            f"{tuning.queries:,} {tuning.kind}",
        )
    return out


_ARROWS: dict[DirectionName, str] = {"text_to_image": "text → image", "image_to_text": "image → text"}
_FIGURES = {"median_rank": "median rank", "mean_rank": "mean rank", "mean_recall": "MR", "recall_sum": "R@sum"}


def print_evaluation(evaluation: Evaluation, comparisons: Sequence[tuple[Evaluation, Comparison]] = ()) -> None:
    """Both directions: exact, through the index and the time of a query side by side; then other encoders beside."""
    fields = ", ".join(evaluation.fields)
    out = table(f"{printable(evaluation.source)}  captions: {fields}  encoder: {evaluation.encoder}")
    indexed = evaluation.text_to_image["through_index"] is not None
    searches = ("exact", "through_index") if indexed else ("exact",)
    out.add_column("direction")
    out.add_column("figure")
    out.add_column("exact model", justify="right")
    if indexed:
        out.add_column("through the index", justify="right")
    out.add_column("ms a query" if indexed else "encoder, ms a query", justify="right")
    for name, arrow in _ARROWS.items():
        times = evaluation.latency.get(name) or evaluation.encoder_time.get(name)
        beside = [f"p50 {times.p50:.2f}", f"p99 {times.p99:.2f}"] if times else []
        recalls = [recall for recall in (evaluation.of(name)[search] for search in searches) if recall is not None]
        for row, figure in enumerate(recalls[0].figures()):
            cells = [_figure(figure, recall, evaluation) for recall in recalls]
            out.add_row("" if row else arrow, _FIGURES.get(figure, figure), *cells, "".join(beside[row : row + 1]))
        counts = f"{recalls[0].queries:,} queries, {recalls[0].candidates:,} candidates"
        out.add_row("", Text(counts, style="dim"), end_section=True)
    for row, figure in enumerate(("mean_recall", "recall_sum")):
        cells = []
        for search in searches:
            values = evaluation.both[search]
            assert values is not None
            cells.append(_value(values[figure], evaluation.both_intervals[search].get(figure), 1))
        out.add_row("" if row else "both", _FIGURES[figure], *cells, "")
    show(out)
    for other, comparison in comparisons:
        show("")
        show(_comparison_table(other, comparison))
    show(Text(evaluation.definition))
    if indexed:
        depth = max(*evaluation.ks, LIST_DEPTH)
        show(Text(f"through the index: lists {depth} deep; a partner further down adds 0 to MRR and mAP"))
    ks = ", ".join(f"R@{k}" for k in evaluation.ks)
    show(Text(f"MR: mean of {ks}; R@sum: their sum over both directions"))
    if evaluation.options.bootstrap is not None:
        level, draws = evaluation.options.bootstrap.level, evaluation.options.bootstrap.resamples
        show(Text(f"±, [low, high]: {level:g} % intervals, {draws:,} draws of the images with their captions"))
    times_of = (*evaluation.latency.values(), *evaluation.encoder_time.values())
    for what in dict.fromkeys(times.what for times in times_of):
        show(Text(f"ms: {what}"))
    for note in evaluation.notes:
        show(Text(note))


def _comparison_table(other: Evaluation, comparison: Comparison) -> Table:
    names = f"{comparison.encoder} less {comparison.baseline}"
    out = table(f"{names}, exact model, {comparison.level:g} % intervals (paired)")
    out.add_column("direction")
    out.add_column("figure")
    for name in ("value", "difference", "interval"):
        out.add_column(name, justify="right")
    out.add_column("excludes 0")
    arrows: dict[str, str] = {"both_directions": "both"} | {str(name): arrow for name, arrow in _ARROWS.items()}
    for part, differences in comparison.differences.items():
        values: Mapping[str, float | None]
        if part == "both_directions":
            values = other.both["exact"] or {}
        else:
            recall = other.text_to_image["exact"] if part == "text_to_image" else other.image_to_text["exact"]
            assert recall is not None
            values = recall.figures()
        for row, (figure, found) in enumerate(differences.items()):
            places = _places(figure)
            out.add_row(
                "" if row else arrows[part],
                _FIGURES.get(figure, figure),
                f"{values[figure]:.{places}f}",
                f"{found.difference:+.{places}f}",
                f"[{found.low:+.{places}f}, {found.high:+.{places}f}]",
                "yes" if found.excludes_zero else "no",
            )
    return out


def _figure(name: str, recall: Recall, evaluation: Evaluation) -> str:
    value = recall.figures()[name]
    if value is None:
        return "–"  # a partner is further down than the lists reach
    depth = max(*evaluation.ks, LIST_DEPTH)
    if name == "median_rank" and depth < value < recall.candidates:
        return f"> {depth}" if recall.mean_rank is None else f"{value:g}"
    return _value(value, recall.intervals.get(name), _places(name), whole=name == "median_rank")


def _value(value: float, interval: tuple[float, float] | None, places: int, *, whole: bool = False) -> str:
    shown = f"{value:g}" if whole else f"{value:.{places}f}"
    if interval is None:
        return shown
    low, high = interval
    if whole:
        return f"{shown} [{low:g}, {high:g}]"
    return f"{shown} ±{(high - low) / 2:.{places}f}"


def _places(figure: str) -> int:
    return 3 if figure in ("MRR", "mAP") else 1


def print_verification(report: VerifyReport) -> None:
    """Problems first, then what was checked."""
    for line in _limited(report.problems):
        warn(line)
    for line in _limited(report.leftovers):
        say(f"note: {line}")
    state = "sound" if report.ok else f"{len(report.problems):,} problems"
    checked = f"generation {report.generation}, {report.shards:,} shards, {report.rows:,} rows"
    show(Text(f"{report.directory}: {state}; {checked}"))


def _limited(lines: Sequence[str], most: int = 50) -> list[str]:
    more = [f"... and {len(lines) - most:,} more"] if len(lines) > most else []
    return [*lines[:most], *more]
