"""The verb query: one query, or a file of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brivl_search.cli import texts
from brivl_search.cli.app import app, is_picture, say_plainly
from brivl_search.cli.options import (
    DEFAULT_INDEX,
    DeviceOption,
    EncoderOption,
    Encoding,
    HitFormat,
    IndexOption,
    PrecisionKind,
    PrecisionOption,
    RerankTop,
    RerankWith,
    RuntimeKind,
    RuntimeOption,
    Target,
)
from brivl_search.errors import BrivlSearchError, UsageError

if TYPE_CHECKING:
    from brivl_search.corpus.encodings import NotText
    from brivl_search.search.engine import Engine, SearchOptions
    from brivl_search.search.queries import Query
    from brivl_search.search.queries import Target as TargetName

_GROUP = 64  # lines of a batch that are embedded together
_CHUNK = 1 << 16


@app.command()
def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="What to look for, in Chinese or English.", show_default=False),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            metavar="PICTURE",
            help="This picture. Alone it finds captions if the index has any, else images.",
        ),
    ] = None,
    plus: Annotated[
        list[str] | None, typer.Option("--plus", metavar="TEXT", help="And this (2:TEXT weighs double).")
    ] = None,
    minus: Annotated[list[str] | None, typer.Option("--minus", metavar="TEXT", help="But not this.")] = None,
    minus_image: Annotated[
        list[Path] | None, typer.Option("--minus-image", metavar="PICTURE", help="But not like this picture.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", metavar="FILE|-", help="A query a line: a text, or JSON with text, image, plus, minus, k."
        ),
    ] = None,
    encoding: Encoding = None,
    target: Annotated[
        Target, typer.Option(help="What to find: images, texts (captions), or what suits.")
    ] = Target.auto,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many hits.")] = 10,
    min_score: Annotated[float | None, typer.Option(help="Only hits of at least this cosine.")] = None,
    min_match: Annotated[
        float | None, typer.Option(help="Only hits of at least this probability, 0 to 1.", metavar="P")
    ] = None,
    under: Annotated[
        list[Path] | None, typer.Option("--under", metavar="FOLDER", help="Only images in this folder.")
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option("--glob", metavar="PATTERN", help="Only images whose name fits, such as 'IMG_*.jpg'."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only images taken from this date on (2024, 2024-05-03).")
    ] = None,
    before: Annotated[str | None, typer.Option(metavar="DATE", help="Only images taken before this date.")] = None,
    min_size: Annotated[str | None, typer.Option(metavar="WxH", help="Only images of at least so many pixels.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="FIELD=VALUE", help="Only where the caption file says so."),
    ] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Near-identical hits as one, with their number.")] = False,
    alike: Annotated[
        float | None,
        typer.Option(metavar="COSINE", help="From where on two hits are near-identical [default: 0.97]."),
    ] = None,
    form: Annotated[
        HitFormat | None, typer.Option("--format", help="Default: table on a terminal, jsonl in a pipe.")
    ] = None,
    print0: Annotated[bool, typer.Option("-0", "--print0", help="Bare paths ending in NUL, for xargs -0.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Thumbnails in the terminal.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the hits to this page, in one file.")
    ] = None,
    open_best: Annotated[bool, typer.Option("--open", help="Open the best hit.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only say about how many fit.")] = False,
    rerank_with: RerankWith = None,
    rerank_top: RerankTop = 32,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row.")] = False,
    nprobe: Annotated[int | None, typer.Option(help="Inverted lists visited [default: tuned].")] = None,
    rerank: Annotated[int | None, typer.Option(help="Candidates scored exactly [default: tuned].")] = None,
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
) -> None:
    """Find images by a text, or captions (else similar images) by a picture. Several may be summed."""
    text = " ".join(words) if words else None
    if text is not None and is_picture(text) and not (image or batch):
        say_plainly(f"{text} is a picture: searching with it, as --image does")
        image = [Path(text)]
        text = None
    for name, value in (("--top-k", top_k), ("--nprobe", nprobe), ("--rerank", rerank)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: give a whole number from 1 on")
    for name, share in (("--min-match", min_match), ("--alike", alike)):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"{name} {share:g}: give a number from 0 to 1")
    if batch is not None:
        if text is not None or image or plus or minus or minus_image:
            raise UsageError(
                "--batch takes its queries from the file alone: leave out the text and --image, --plus, --minus"
            )
        if preview or html or open_best:
            raise UsageError("--preview, --html and --open show the hits of one query: leave out --batch")
        if count:
            raise UsageError("--count is about one query: leave out --batch")
    else:
        if encoding is not None:
            raise UsageError("--encoding says how the file of --batch is written; give it too")
        # For one query NumPy's threads wait for each other longer than they work. Read when NumPy is imported.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from brivl_search.search.dedupe import ALIKE
    from brivl_search.search.engine import Engine, SearchOptions
    from brivl_search.search.filters import Filter
    from brivl_search.search.hits import FITS
    from brivl_search.search.match import fits
    from brivl_search.search.queries import TARGETS, compose

    wanted = Filter.of(
        under=under or (), glob=glob or (), after=after, before=before, min_size=min_size, where=where or ()
    )
    search = SearchOptions(
        top_k,
        exact,
        nprobe,
        rerank,
        min_score,
        min_match,
        wanted,
        (ALIKE if alike is None else alike) if dedupe or alike is not None else None,
        rerank_with=rerank_with,
        rerank_top=rerank_top,
    )
    aim = TARGETS[target.value]
    shown = "paths" if print0 else form.value if form else None
    if batch is not None:
        opened = partial(
            Engine, index, encoder=encoder, device=device, runtime=runtime.value, precision=precision.value, stays=True
        )
        _batch(batch, encoding, opened, search, aim, shown, print0)
        return
    asked = compose(
        text, image=image or (), plus=plus or (), minus=minus or (), minus_image=minus_image or (), target=aim
    )
    from brivl_search import output

    engine = Engine(index, encoder=encoder, device=device, runtime=runtime.value, precision=precision.value)
    if count:
        _count(engine, asked, search, shown)
        return
    hits = engine.query(asked, search)
    _warn(engine, asked)
    _warn_unread(engine, rerank_with)
    if not hits and (reason := engine.why_nothing(asked, search)):
        output.say(reason.message)
    if html is not None:
        output.write_contact_sheet(html, str(asked), hits)
        output.say(f"wrote {html}: {len(hits):,} hits")
    if preview:
        output.preview_hits(hits)
    if fits(hits) is False and (shown or output.default_format()) == "table":  # a pipe is told by each hit
        output.say(texts.nothing_fits(hits[0].kind, FITS))
    if shown or not (preview or html):
        output.print_hits(hits, shown or output.default_format(), nul=print0)
    if open_best:
        output.open_hit(hits)


def _count(engine: Engine, asked: Query, search: SearchOptions, shown: str | None) -> None:
    """Prints how many fit: a line, or a JSON object."""
    from brivl_search.output import default_format, print_jsonl

    found = engine.count(asked, search)
    _warn(engine, asked)
    if (shown or default_format()) == "table":
        typer.echo(texts.counted(engine.target(asked), found.fit, found.rows))
    else:
        print_jsonl([{"query": str(asked), **found.to_dict()}])


def _warn(engine: Engine, asked: Query) -> None:
    from brivl_search.output import warn
    from brivl_search.search.words import say_unknown

    if words := engine.unknown_words(asked):
        warn(say_unknown(words, not engine.knows_nothing(asked)))
    if cut := engine.cut_tokens(asked):
        warn(f"the query is longer than the text tower takes: its last {cut} tokens were not seen")
    for line in engine.reader.damage:
        warn(f"not searched: {line}")


def _warn_unread(engine: Engine, rerank_with: str | None) -> None:
    """Names the pictures that kept their places because the matcher could not read them."""
    from brivl_search.display import printable
    from brivl_search.output import warn

    for path, why in (engine.reranker(rerank_with).unread if rerank_with is not None else {}).items():
        warn(f"not re-ordered: {printable(path)}: {why}")


def _batch(
    name: str,
    encoding: str | None,
    open_engine: Callable[[], Engine],
    search: SearchOptions,
    aim: TargetName,
    form: str | None,
    nul: bool,
) -> None:
    """Answers line after line, in order, as soon as they have come; a bad line is told and costs only itself."""
    from brivl_search.output import default_format, print_hits, print_jsonl, warn
    from brivl_search.search.queries import read_batch
    from brivl_search.search.words import say_unknown

    form = form or default_format()
    groups = _lines(name, encoding)
    engine = open_engine()
    failed = count = 0
    for group in groups:
        lines = list(read_batch(group))
        answers = iter(
            engine.query_many([one for *_, one in lines if not isinstance(one, UsageError)], search, target=aim)
        )
        for line, title, asked in lines:
            answer = asked if isinstance(asked, UsageError) else next(answers)
            if isinstance(answer, BrivlSearchError):
                failed += 1
                why = str(answer) if answer is asked else f"line {line}: {answer}"
                warn(why)
                if form == "jsonl":
                    print_jsonl([{"query": title, "n": count, "error": why}])
                else:
                    print_hits([], form, nul=nul, query=title, number=count)
            else:
                if not isinstance(asked, UsageError) and (words := engine.unknown_words(asked)):
                    warn(f"line {line}: {say_unknown(words, not engine.knows_nothing(asked))}")
                print_hits(answer, form, nul=nul, query=title, number=count)
            count += 1
    for damage in engine.reader.damage:
        warn(f"not searched: {damage}")
    _warn_unread(engine, search.rerank_with)
    if failed:
        raise BrivlSearchError(f"{failed} of {count} queries could not be answered; the warnings above say why")


def _lines(name: str, encoding: str | None) -> Iterator[list[tuple[int, str | NotText]]]:
    """Numbered lines of a file or of stdin, in groups: what has come is not kept waiting for what has not.

    Raises:
        UsageError: the file cannot be read, or is of another encoding.
    """
    from brivl_search.corpus.encodings import check_encoding, decode_lines

    check_encoding(encoding)
    try:
        handle = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY)
        os.read(handle, 0)
    except OSError as error:
        raise UsageError(f"--batch {name}: {error.strerror}: give a file with a query on each line, or -") from None
    chunks = iter(lambda: os.read(handle, _CHUNK), b"")
    return _grouped(decode_lines(chunks, f"--batch {name}", encoding))


def _grouped(parts: Iterable[list[str | NotText]]) -> Iterator[list[tuple[int, str | NotText]]]:
    number = 0
    for lines in parts:
        numbered = list(enumerate(lines, number + 1))
        number += len(lines)
        for at in range(0, len(numbered), _GROUP):
            yield numbered[at : at + _GROUP]
