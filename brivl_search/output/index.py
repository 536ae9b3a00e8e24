"""What an index holds, how its search is tuned, and what a verification found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from brivl_search.display import printable
from brivl_search.encoders.runtimes.measured import describe
from brivl_search.index import IndexInfo, Modality, ModalityInfo, Tuning, VerifyReport
from brivl_search.index.sources import Source
from brivl_search.index.types import Correction
from brivl_search.output import human_bytes, say, show, table, warn
from brivl_search.output.console import PathCell
from brivl_search.output.words import OPTIONS


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
            "hub_correction": None
            if part.correction is None
            else {name: value for name, value in asdict(part.correction).items() if name != "sha256"},
            "regions": None if part.regions is None else {**asdict(part.regions), "rows": part.with_regions},
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
        "runtime": describe(info.encoder.fingerprint),
        "identity": info.identity,
        "folders": [{"given": given, "absolute": absolute} for given, absolute in info.roots],
        "sources": [source_dict(source) for source in info.sources],
        "image": side(info.image),
        "text": side(info.text),
    }


def print_info(info: IndexInfo) -> None:
    """What an index holds, for people."""
    facts = table()
    facts.show_header = False
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row(
        "index", PathCell(str(info.directory), f"  (format {info.format_version}, generation {info.generation})")
    )
    facts.add_row("encoder", Text(f"{info.encoder.name}  {info.encoder.dim} dimensions  {info.encoder.fingerprint}"))
    facts.add_row("runtime", Text(describe(info.encoder.fingerprint)))
    for source in info.sources:
        facts.add_row(_KINDS[source.kind], PathCell(source.path, _read_with(source)))
    for name, part in (("images", info.image), ("captions", info.text)):
        facts.add_row(name, f"{part.rows:,} rows, {part.removed:,} removed, {human_bytes(part.bytes)}")
        if part.shards:
            facts.add_row("", _search_facts(part))
        if part.correction is not None:
            facts.add_row("", f"hub correction: {correction_facts(part.correction)}")
        if part.regions is not None:
            facts.add_row("", regions_facts(part))
        for shard in part.shards:
            facts.add_row("", f"{shard.name}  {shard.rows:,} rows  {human_bytes(shard.bytes)}  {shard.kind}")
    show(facts)


_KINDS = {
    "folder": "folder",
    "dataset": "dataset",
    "files": "files in",
    "captions": "captions",
    "import": "import",
}


def _read_with(source: Source) -> str:
    """What a source is read with, as one would type it."""
    words = []
    for name, value in sorted(source.options.items()):
        option = OPTIONS.get({"caption_fields": "captions", "format": "dataset_format"}.get(name, name), f"--{name}")
        if value is True:
            words.append(option)
        elif isinstance(value, list | tuple):
            joined = [",".join(value)] if name == "caption_fields" else value
            words += [f"{option} {one}" for one in joined]
        elif value is not None:
            words.append(f"{option} {value}")
    away = [] if source.present else ["away"]
    return "  " + "  ".join(away + words) if away or words else ""


def source_dict(source: Source, images: int | None = None) -> dict[str, Any]:
    """A source as `sources --format json` prints it; `images` it holds, if they were counted."""
    seen = datetime.fromtimestamp(source.seen, UTC).isoformat(timespec="seconds") if source.seen else None
    counts = {} if images is None else {"images": images}
    return {
        "kind": source.kind,
        "path": source.path,
        "given": source.given,
        "state": "present" if source.present else "absent",
        **counts,
        "options": dict(source.options),
        "device": source.device or None,
        "inode": source.inode or None,
        "seen": seen,
    }


def sources_table(found: Sequence[tuple[Source, int]]) -> Table:
    """What an index covers, and how many images of each."""
    out = table()
    out.add_column("kind")
    out.add_column("source")
    out.add_column("images", justify="right")
    out.add_column("state")
    for source, images in found:
        out.add_row(
            source.kind,
            PathCell(source.path, _read_with(replace(source, present=True))),
            f"{images:,}",
            "present" if source.present else "away",
        )
    return out


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


def correction_facts(correction: Correction | None) -> str:
    """How hubs are corrected, in a line; "" where they are not."""
    if correction is None:
        return ""
    return (
        f"text → image scores less {correction.weight:g} × the mean of a photo's {correction.nearest} nearest of "
        f"{correction.references:,} reference captions"
    )


def regions_facts(part: ModalityInfo) -> str:
    """What is kept for a matcher, in a line; "" where nothing is."""
    kept = part.regions
    if kept is None:
        return ""
    return f"regions for {printable(kept.name)}: {part.with_regions:,} of {part.rows:,} rows, {kept.bytes:,} bytes each"


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
