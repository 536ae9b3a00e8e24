"""The program itself: its verbs in groups, its exit codes, and how it ends. Importing it costs typer alone.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 index missing or incompatible, 4 items skipped under --strict,
130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from brivl_search import __version__
from brivl_search.cli import texts
from brivl_search.cli.options import ReportFormat
from brivl_search.errors import UsageError


class _Verbs(TyperGroup):
    """Shows the verbs in groups, with examples; ends an interrupt and a closed pipe our way.

    Typer would end both by itself, silently, and with 1 for the pipe.
    """

    began = time.perf_counter()

    def invoke(self, ctx: Any) -> Any:
        type(self).began = time.perf_counter()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(f"brivl-search: {texts.interrupted(ctx.invoked_subcommand)}", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our pipe has seen enough
            raise typer.Exit(0) from None

    def list_commands(self, ctx: Any) -> list[str]:
        known = [name for names in texts.GROUPS.values() for name in names]
        return [*known, *(name for name in super().list_commands(ctx) if name not in known)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            texts.dress(command, cmd_name)
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in texts.GROUPS.items():
            rows = [(name, texts.summary(self.get_command(ctx, name), name)) for name in names]
            with formatter.section(texts.title(title)):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        texts.write_examples(formatter, "")


app = typer.Typer(
    name="brivl-search",
    cls=_Verbs,
    help=texts.program(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def seconds_so_far() -> float:
    """Since the verb began: all that a person waited, but for Python's own start."""
    return time.perf_counter() - _Verbs.began


def is_picture(text: str) -> bool:
    """Whether somebody who typed this as a text meant a file: it is there, and has a picture's ending."""
    from brivl_search.corpus.kinds import AVIF, HEIF, PICTURES, by_ending, ending_of

    return by_ending(ending_of(os.path.basename(text))) in (PICTURES, HEIF, AVIF) and os.path.isfile(text)


def say_plainly(line: str) -> None:
    """A line on stderr where rich is not needed yet; the line is made harmless."""
    from brivl_search.display import harmless

    print(f"brivl-search: {harmless(line)}", file=sys.stderr)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"brivl-search {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def load_for(
    index: Path,
    encoder: str | None,
    device: str,
    regions: str = "",
    truncate_dim: int | None = None,
    runtime: Any = "auto",
    precision: Any = "auto",
) -> Any:
    """The encoder asked for; else the one an existing index was built with; else the bundled one.

    `regions`, such as +boxes=FILE, replaces what the encoder's name says of them. A new index may get vectors in int8,
    where `models runtimes` has measured that they lose nothing; an existing one keeps its own.
    """
    from brivl_search.encoders import DEFAULT, load_encoder
    from brivl_search.encoders.registry import without_precision, without_regions
    from brivl_search.encoders.runtimes.measured import best_for_new
    from brivl_search.errors import EncoderError, IndexIncompatibleError, IndexMissingError, UsageError
    from brivl_search.index import IndexReader, gpu

    gpu.choose(device)
    built_with = None
    try:
        with IndexReader.open(index) as reader:
            built_with = reader.info.encoder.name
    except IndexMissingError:
        pass
    given, encoder = bool(encoder), encoder or built_with or DEFAULT
    name = without_regions(encoder) + regions if regions else encoder
    options: dict[str, Any] = {"device": device, "truncate_dim": truncate_dim, "runtime": runtime}
    try:
        loaded = load_encoder(name, precision=precision, **options)
    except (EncoderError, UsageError) as error:
        if given or built_with is None:
            raise
        raise IndexIncompatibleError(
            f"the index at {index} needs its encoder {built_with!r}, which cannot be loaded ({error}): say once "
            f"where it is now: brivl-search build-index FOLDER --index {index} --encoder NAME"
        ) from None
    if precision != "auto" or loaded.name == built_with:
        return loaded
    if built_with is not None:
        its_own = without_precision(built_with)[0] == loaded.name
        return load_encoder(built_with, device=device, runtime=runtime) if its_own else loaded
    best = best_for_new(loaded.fingerprint) if runtime == "auto" and device in ("auto", "cpu") else None
    return load_encoder(name, precision="int8", **options) if best is not None and best.precision == "int8" else loaded


def caption_fields(text: str | None) -> tuple[str, ...] | None:
    """ "zh,en" → ("zh", "en"). "default" → (): the usual ones again."""
    if text is None:
        return None
    fields = tuple(part.strip() for part in text.split(",") if part.strip())
    if fields == ("default",):
        return ()
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
