"""The verb caption: pictures to captions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brivl_search.cli.app import app
from brivl_search.cli.options import (
    Batch,
    CaptionerOption,
    DeviceOption,
    EncoderOption,
    Hidden,
    Megapixels,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    RerankWith,
    RuntimeKind,
    RuntimeOption,
    Strict,
    Verbose,
    Workers,
)
from brivl_search.cli.reading import Reader, bar_beside, load
from brivl_search.cli.texts import chinese
from brivl_search.errors import UsageError

if TYPE_CHECKING:
    from brivl_search.embedding.captioning import Captioned
    from brivl_search.encoders.captioning import Captioner


class Language(StrEnum):
    zh = "zh"
    en = "en"
    both = "both"


class CaptionFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"


@app.command()
def caption(
    images: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Image files, or folders of them.")],
    lang: Annotated[Language | None, typer.Option("--lang", help="zh, en or both [default: your locale's].")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=20, help="Captions of each photo.")] = 1,
    captioner: CaptionerOption = None,
    rerank_with: RerankWith = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="captions.jsonl", help="Write them there, as build-index reads them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
    form: Annotated[
        CaptionFormat | None, typer.Option("--format", help="Default: table on a terminal, jsonl in a pipe.")
    ] = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 32,
    strict: Strict = False,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write captions for photos."""
    from brivl_search.corpus.generated import captions_file, check_out
    from brivl_search.embedding.captioning import Describer, caption_images
    from brivl_search.embedding.pictures import find_pictures
    from brivl_search.output import default_format, print_jsonl, say

    if out is not None:
        check_out(out, force=force)
    found = find_pictures(images, include_hidden=include_hidden)
    how: Literal["auto", "fp32", "bf16", "int8"] = precision.value
    if how == "int8":
        raise UsageError("--precision int8 is for an encoder's vectors: leave it out")
    describer = Describer.of(
        captioner, encoder, rerank_with, device=device, precision=how,
        towers=lambda name: load(name, device, runtime.value, how),
    )  # fmt: skip
    name, languages = describer.captioner.name, _languages(lang, describer.captioner)
    shown = form.value if form else default_format()
    with bar_beside(quiet, "table" if out else shown) as bar:
        read = Reader(
            found,
            partial(caption_images, describer=describer, languages=languages, count=count),
            bar, workers, batch_size, max_megapixels,
        )  # fmt: skip
        if out is not None:
            with captions_file(out, name) as file:
                for one in read:
                    texts = {language: [c.text for c in some] for language, some in one.captions.items()}
                    file.add(one.decoded.file.path, texts)
                read.check()
        elif shown == "jsonl":
            for one in read:
                print_jsonl([_row(found.as_given(one.decoded.file.path), one, name)])
        else:
            _table([(found.as_given(one.decoded.file.path), one) for one in read])
    read.finish(quiet, verbose, strict)
    if out is not None and not quiet:
        say(f"{out}: captions of {file.rows:,} photos by {name}")
        say("to search by them: brivl-search build-index FOLDER, with the file in the folder; or brivl-search add FILE")


def _languages(asked: Language | None, captioner: Captioner) -> list[str]:
    """The languages to write in; without a choice that of the user, where the captioner writes in it."""
    from brivl_search.encoders.captioning import check_languages

    if asked is None:
        own = "zh" if chinese() else "en"
        return [own if own in captioner.languages else captioner.languages[0]]
    wanted = ["zh", "en"] if asked is Language.both else [asked.value]
    check_languages(captioner, wanted)
    return wanted


def _row(path: str, one: Captioned, captioner: str) -> dict[str, Any]:
    """A line as `--out` writes it, with the path as it was typed, and what the captions are ordered by beside it."""
    texts = {name: [caption.text for caption in some] for name, some in one.captions.items()}
    scores = {
        name: [
            {
                key: round(value, 4)
                for key, value in (("score", c.score), ("cosine", c.cosine), ("rerank", c.rerank))
                if value is not None
            }
            for c in some
        ]
        for name, some in one.captions.items()
    }
    return {"image": path, **texts, "generated": True, "captioner": captioner, "scores": scores}


def _table(rows: Sequence[tuple[str, Captioned]]) -> None:
    from rich.text import Text

    from brivl_search.display import harmless
    from brivl_search.output import PathCell, show, table

    out = table()
    known = any(c.cosine is not None for _, one in rows for some in one.captions.values() for c in some)
    out.add_column("image")
    if known:
        out.add_column("score", justify="right")
    out.add_column("caption", overflow="fold")
    for path, one in rows:
        captions = [c for some in one.captions.values() for c in some]
        for at, c in enumerate(captions):
            score = [Text("" if c.cosine is None else f"{c.cosine:.3f}")] if known else []
            out.add_row(Text() if at else PathCell(path), *score, Text(harmless(c.text)))
    show(out)
