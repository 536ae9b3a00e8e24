"""Verbs that carry vectors out of and into an index: export, import."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app, load_for
from brivl_search.cli.options import DEFAULT_INDEX, DeviceOption, EncoderOption, IndexOption, Quiet
from brivl_search.errors import UsageError


class ExportKind(StrEnum):
    npy = "npy"
    parquet = "parquet"
    jsonl = "jsonl"


class ImportedModality(StrEnum):
    image = "image"
    text = "text"


@app.command("export")
def export_rows(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    to: Annotated[ExportKind, typer.Option("--to", help="How vectors and records are written.")] = ExportKind.npy,
    index: IndexOption = DEFAULT_INDEX,
    quiet: Quiet = False,
) -> None:
    """Write all vectors and records into a folder."""
    from brivl_search.index import IndexReader
    from brivl_search.output import Bar, say
    from brivl_search.transfer.export import export

    with IndexReader.open(index) as reader:
        total = reader.count("image") + reader.count("text")
    with Bar(quiet=quiet) as bar:
        bar.phase("rows", total)
        counts = export(index, out, to.value, bar.advance)
    if not quiet:
        say(f"{out}: {counts['image']:,} images, {counts['text']:,} captions")


@app.command("import")
def import_rows(
    source: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="What `export` wrote.")] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="FILE.npy", help="float16 or float32 (rows, dim), made elsewhere."),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records", metavar="FILE.jsonl", help="A JSON object for each row: `path`, or `text` and `image`."
        ),
    ] = None,
    modality: Annotated[ImportedModality, typer.Option(help="What the rows are.")] = ImportedModality.image,
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Take in an export, or vectors made on another machine."""
    if (source is None) == (vectors is None) or (vectors is None) != (records is None):
        raise UsageError("give either a FOLDER that export wrote, or --vectors FILE.npy and --records FILE.jsonl")
    from brivl_search.encoders.base import encode_queries
    from brivl_search.index import EncoderInfo
    from brivl_search.output import Bar, say
    from brivl_search.output.build import say_state
    from brivl_search.transfer.imports import import_folder, import_vectors

    def encode(texts: Sequence[str]) -> Any:
        towers: Any = load_for(index, encoder, device)  # its own, which goes when the texts are done
        towers.spare_memory = True
        return encode_queries(towers, texts)

    with Bar(quiet=quiet) as bar:
        bar.phase("rows", None)
        if source is not None:
            report = import_folder(source, index, encode, bar.advance)
        else:
            assert vectors is not None and records is not None
            loaded = load_for(index, encoder, device)
            made_by = EncoderInfo(loaded.name, loaded.fingerprint, loaded.dim)
            report = import_vectors(vectors, records, modality.value, index, made_by, encode, bar.advance)
    if not quiet:
        for note in report.notes:
            say(note)
        say(f"{report.image.added:,} images and {report.text.added:,} captions taken in")
        say_state(index, report)
