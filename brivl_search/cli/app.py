"""The program itself: its options, its exit codes, and what several verbs share. Importing it costs typer alone.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 index missing or incompatible, 4 items skipped under --strict,
130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from brivl_search import __version__
from brivl_search.errors import UsageError


class _Verbs(TyperGroup):
    """Ends an interrupt and a closed pipe our way: typer would end both by itself, silently and with 1 for the pipe."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("brivl-search: interrupted; what was done is kept, run the same command to go on", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our pipe has seen enough
            raise typer.Exit(0) from None


app = typer.Typer(
    name="brivl-search",
    cls=_Verbs,
    help="Search photos by Chinese and English text, and captions by photo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class HitFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    paths = "paths"


class ReportFormat(StrEnum):
    table = "table"
    json = "json"


class IndexKind(StrEnum):
    auto = "auto"
    ivfpq = "ivfpq"
    exact = "exact"


class CodecKind(StrEnum):
    fastscan = "fastscan"
    pq8 = "pq8"


class Target(StrEnum):
    auto = "auto"
    images = "images"
    texts = "texts"
    image = "image"
    text = "text"


IndexOption = Annotated[
    Path, typer.Option("--index", "-i", envvar="BRIVL_SEARCH_INDEX", help="Folder of the index.", show_envvar=True)
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        envvar="BRIVL_SEARCH_ENCODER",
        help="Bundled name, checkpoint folder, hf:ORG/NAME, official:PATH, plug-in (see: models list).",
        show_envvar=True,
    ),
]
TruncateOption = Annotated[
    int | None,
    typer.Option("--truncate-dim", metavar="N", help="Keep N dimensions of the vectors; Matryoshka models only."),
]
LayoutOption = Annotated[
    str | None, typer.Option("--dataset-format", help="Layout of the --dataset [default: recognised].")
]
SplitOption = Annotated[str | None, typer.Option("--split", help="Only this split of the --dataset, such as test.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Folder of the --dataset's images.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")]
ReportOption = Annotated[ReportFormat | None, typer.Option("--format", help="table, or json (default in a pipe).")]
DEFAULT_INDEX = Path("indexes/default")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"brivl-search {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def load_for(index: Path, encoder: str | None, device: str, regions: str = "", truncate_dim: int | None = None) -> Any:
    """The encoder asked for; else the one an existing index was built with; else the bundled one.

    `regions`, such as +boxes=FILE, replaces what the encoder's name says of them.
    """
    from brivl_search.encoders import DEFAULT, load_encoder
    from brivl_search.encoders.registry import without_regions
    from brivl_search.errors import IndexMissingError
    from brivl_search.index import IndexReader, gpu

    gpu.choose(device)
    if encoder is None:
        try:
            with IndexReader.open(index) as reader:
                encoder = reader.info.encoder.name
        except IndexMissingError:
            encoder = DEFAULT
    name = without_regions(encoder) + regions if regions else encoder
    return load_encoder(name, device=device, truncate_dim=truncate_dim)


def caption_fields(text: str | None) -> tuple[str, ...] | None:
    """ "zh,en" → ("zh", "en")."""
    if text is None:
        return None
    fields = tuple(part.strip() for part in text.split(",") if part.strip())
    if not fields:
        raise UsageError("--captions: name at least one field of captions.jsonl, such as zh")
    return fields


def json_wanted(form: ReportFormat | None) -> bool:
    return form is ReportFormat.json if form else not sys.stdout.isatty()


def byte_count(option: str, text: str) -> int:
    """ "2G" → 2147483648; units K, M, G, T (binary, with or without "iB" or "B"), or none for bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise UsageError(f"{option} {text}: give a size such as 500M or 2G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))
