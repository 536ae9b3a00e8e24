"""The command line: one verb per screen. Heavy modules are imported inside the verbs that need them.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 index missing or incompatible, 4 items skipped under --strict,
130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from brivl_search import __version__
from brivl_search.errors import BrivlSearchError, IndexIncompatibleError, SkippedItemsError, UsageError


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


class Target(StrEnum):
    auto = "auto"
    image = "image"
    text = "text"


IndexOption = Annotated[
    Path, typer.Option("--index", "-i", envvar="BRIVL_SEARCH_INDEX", help="Folder of the index.", show_envvar=True)
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder", envvar="BRIVL_SEARCH_ENCODER", help="Bundled name or checkpoint folder.", show_envvar=True
    ),
]
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


@app.command("build-index")
def build_index(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of images, searched in depth.")],
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    index_type: Annotated[
        IndexKind | None, typer.Option(help="How vectors are searched; auto decides by size.")
    ] = None,
    captions: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="Fields of captions.jsonl to index [default: zh,en,captions].")
    ] = None,
    include_hidden: Annotated[bool, typer.Option(help="Also files and folders beginning with a dot.")] = False,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Skip larger images.")] = 178,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes [default: one per CPU].")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64,
    strict: Annotated[bool, typer.Option(help="Exit with 4 if anything was skipped.")] = False,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name every skipped file.")] = False,
) -> None:
    """Index the images (and captions.jsonl) under FOLDER; run it again to take in what has changed."""
    from brivl_search.build import BuildOptions
    from brivl_search.build import build_index as build
    from brivl_search.output import Bar
    from brivl_search.reports import print_build

    loaded = _load_for(index, encoder, device)
    choices = BuildOptions(
        index_type=index_type.value if index_type else None,
        include_hidden=include_hidden,
        workers=workers,
        max_megapixels=max_megapixels,
        caption_fields=_fields(captions),
        batch_size=batch_size,
    )
    with Bar(quiet=quiet) as bar:
        report = build(folders, index, loaded, choices, bar)
    if not quiet:
        print_build(report, str(index), verbose=verbose)
    if strict and (report.skipped or report.bad_captions):
        raise SkippedItemsError(
            f"{len(report.skipped)} files and {len(report.bad_captions)} caption lines were skipped (--strict)"
        )


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
    print_hits(hits, "paths" if print0 else form.value if form else default_format(), nul=print0)


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

        data = load_dataset(dataset, _fields(captions))
        loaded = load_encoder(encoder or DEFAULT, device=device)
        with Bar(quiet=quiet) as bar:
            bar.phase("images and captions", len(data.images) + sum(map(len, data.captions)))
            result = evaluation.evaluate_dataset(data, loaded, ks, bar.advance)
    else:
        from brivl_search.index import IndexReader

        result = evaluation.evaluate_index(IndexReader.open(index), ks, _fields(captions))
    if _json_wanted(form):
        typer.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
    else:
        print_evaluation(result)


@app.command()
def info(index: IndexOption = DEFAULT_INDEX, form: ReportOption = None) -> None:
    """Show what an index holds: rows, encoder, shards, bytes, how it is searched."""
    from brivl_search.index import IndexReader
    from brivl_search.reports import info_dict, print_info

    with IndexReader.open(index) as reader:
        facts = reader.info
    if _json_wanted(form):
        typer.echo(json.dumps(info_dict(facts), indent=2))
    else:
        print_info(facts)


@app.command()
def verify(index: IndexOption = DEFAULT_INDEX) -> None:
    """Check every shard's checksum and row counts against the catalog."""
    from brivl_search.index import verify as check
    from brivl_search.reports import print_verification

    report = check(index)
    print_verification(report)
    if not report.ok:
        raise IndexIncompatibleError(
            f"the index at {index} is damaged: delete it and build it again with "
            f"brivl-search build-index FOLDER --index {index}"
        )


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
        report = build(folders, index, _load_for(index, None, device), BuildOptions(), bar)
    print_build(report, str(index), verbose=False)
    engine = Engine(index, device=device)
    for words in QUERIES:
        show("")
        show(hits_table(engine.by_text(words, SearchOptions(top_k)), title=f'brivl-search query "{words}"'))
    say(f'\nTry your own: brivl-search query "..." --index {index}')


def _load_for(index: Path, encoder: str | None, device: str) -> Any:
    """The encoder asked for; else the one an existing index was built with; else the bundled one."""
    from brivl_search.encoders import DEFAULT, load_encoder
    from brivl_search.errors import IndexMissingError
    from brivl_search.index import IndexReader

    if encoder is None:
        try:
            with IndexReader.open(index) as reader:
                encoder = reader.info.encoder.name
        except IndexMissingError:
            encoder = DEFAULT
    return load_encoder(encoder, device=device)


def _fields(text: str | None) -> tuple[str, ...] | None:
    """ "zh,en" → ("zh", "en")."""
    if text is None:
        return None
    fields = tuple(part.strip() for part in text.split(",") if part.strip())
    if not fields:
        raise UsageError("--captions: name at least one field of captions.jsonl, such as zh")
    return fields


def _json_wanted(form: ReportFormat | None) -> bool:
    return form is ReportFormat.json if form else not sys.stdout.isatty()


def main() -> None:
    """Entry point: runs a verb and turns errors into one line and an exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are not UTF-8
    try:
        app()
    except BrivlSearchError as error:
        print(f"brivl-search: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
