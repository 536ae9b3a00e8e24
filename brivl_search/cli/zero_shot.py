"""Verbs that need an encoder and no index: classify, match, embed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brivl_search.cli.app import DeviceOption, EncoderOption, Quiet, app
from brivl_search.cli.change import Batch, Hidden, Megapixels, Strict, Verbose, Workers
from brivl_search.errors import CorpusError, SkippedItemsError, UsageError

if TYPE_CHECKING:
    from brivl_search.embedding.batches import Embedded
    from brivl_search.embedding.pictures import Pictures
    from brivl_search.embedding.zero_shot import Guess
    from brivl_search.encoders.base import Encoder
    from brivl_search.output import Bar


class RowFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"


class FloatKind(StrEnum):
    float32 = "float32"
    float16 = "float16"


RowOption = Annotated[RowFormat | None, typer.Option("--format", help="Default: table on a terminal, jsonl in a pipe.")]
NO_PROBABILITY = "this encoder has no calibration: the score is the cosine, and there is no probability"


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", metavar="FILE", help="A label a line; other names of the same thing after tabs."),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option("--template", metavar="TEXT", help="A sentence with {} for the label, instead of the built-in."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Labels for each image.")] = 3,
    form: RowOption = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sort images into classes that are given by name only, in Chinese or English."""
    from brivl_search.embedding import zero_shot
    from brivl_search.embedding.pictures import find_pictures
    from brivl_search.output import default_format

    classes = zero_shot.read_labels(labels)
    zero_shot.check_templates(template or ())
    found = find_pictures(images, include_hidden=include_hidden)
    loaded = _load(encoder, device)
    shown = form.value if form else default_format()
    printer = _Guesses(shown)
    with _bar(quiet, shown) as bar:
        bar.phase("labels", len(classes))
        vectors = zero_shot.class_vectors(loaded, [label.names for label in classes], template or ())
        if loaded.calibration is None and not quiet:
            _warn(NO_PROBABILITY)
        read = _Reader(found, loaded, bar, workers, batch_size, max_megapixels)
        for one in read:
            assert one.vector is not None
            guesses = zero_shot.classify(one.vector, classes, vectors, loaded.calibration, top_k)
            printer.add(found.as_given(one.decoded.file.path), guesses)
    printer.finish()
    read.finish(quiet, verbose, strict)


@app.command()
def match(
    text: Annotated[list[str], typer.Option("--text", "-t", help="A text; give several for a matrix.")],
    image: Annotated[list[Path], typer.Option("--image", help="A picture; give several for a matrix.")],
    form: RowOption = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say how well texts and pictures belong together: the cosine, and the probability (match)."""
    from brivl_search.embedding import zero_shot
    from brivl_search.embedding.batches import clean_text
    from brivl_search.output import default_format, print_csv, print_jsonl, warn

    texts = [clean_text(one, "--text") for one in text]
    loaded = _load(encoder, device)
    cosines = zero_shot.match(loaded, texts, [str(path) for path in image])
    for said, cut in zip(texts, loaded.cut_tokens(texts), strict=True):
        if cut:
            warn(f"{said[:40]!r} is longer than the text tower takes: its last {cut} tokens were not seen")
    calibration = loaded.calibration
    rows: list[dict[str, Any]] = []
    for said, scores in zip(texts, cosines.tolist(), strict=True):
        for path, score in zip(image, scores, strict=True):
            known = {} if calibration is None else {"match": round(calibration.probability(score), 4)}
            rows.append({"text": said, "image": str(path), "score": round(score, 6), **known})
    shown = form.value if form else default_format()
    if shown == "jsonl":
        print_jsonl(rows)
    elif shown == "csv":
        print_csv(rows, list(rows[0]))
    else:
        if calibration is None:
            warn(NO_PROBABILITY)
        _match_table(texts, [str(path) for path in image], rows)


@app.command()
def embed(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE...]", help="Image files, or folders of them.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", "-t", help="A text.")] = None,
    texts: Annotated[
        str | None, typer.Option("--texts", metavar="FILE|-", help="A text a line; - reads them from stdin.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="X.npy", help="Write X.npy and X.jsonl, as `import` takes them."),
    ] = None,
    dtype: Annotated[FloatKind, typer.Option(help="Of the vectors.")] = FloatKind.float32,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn images or texts into unit vectors: X.npy with X.jsonl, or JSON lines on stdout."""
    from brivl_search.embedding.batches import embed_texts, numbers
    from brivl_search.embedding.pictures import find_pictures
    from brivl_search.output import print_jsonl
    from brivl_search.transfer.vector_file import VectorFile, image_record

    said = _texts(text or (), texts)
    if not images and not said:
        raise UsageError("nothing to embed: name images or folders, or give --text TEXT or --texts FILE")
    if images and said and out is not None:
        raise UsageError("--out holds either images or texts, as `import` takes them: run embed once for each")
    found = find_pictures(images, include_hidden=include_hidden) if images else None
    if out is not None and out.suffix != ".npy":
        raise UsageError(f"--out {out}: give a name that ends in .npy; the records go beside it, in .jsonl")
    loaded = _load(encoder, device)
    read = None

    def rows(bar: Bar) -> Iterator[tuple[dict[str, Any], Any]]:
        nonlocal read
        if found is not None:
            read = _Reader(found, loaded, bar, workers, batch_size, max_megapixels)
            for one in read:
                yield image_record(one.decoded, None if out is None else out.parent), one.vector
        if said:
            bar.phase("texts", len(said))
            for line, vector in embed_texts(said, loaded):
                bar.advance(1)
                yield {"text": line}, vector

    with _bar(quiet, "table" if out else "jsonl") as bar:
        if out is not None:
            with VectorFile(out, loaded.dim, dtype.value) as file:
                for record, vector in rows(bar):
                    file.add(record, vector)
                if read is not None:
                    read.check()
        else:
            for record, vector in rows(bar):
                if found is not None and "path" in record:
                    record["path"] = found.as_given(record["path"])
                print_jsonl([{**record, "vector": numbers(vector, dtype.value)}])
    if said and not quiet and (cut := sum(n > 0 for n in loaded.cut_tokens(said))):
        _warn(f"{cut:,} texts are longer than the text tower takes; their ends were not seen")
    if read is not None:
        read.finish(quiet, verbose, strict)
    if out is not None and not quiet:
        from brivl_search.output import say

        modality = "image" if found is not None else "text"
        say(f"{out}: {file.rows:,} × {loaded.dim} {dtype.value}, records in {file.records}, by {loaded.name}")
        say(f"to index them: brivl-search import --vectors {out} --records {file.records} --modality {modality}")


# -- what the verbs share ----------------------------------------------------------------------------------------


def _load(encoder: str | None, device: str) -> Encoder:
    from brivl_search.encoders import DEFAULT, load_encoder

    return load_encoder(encoder or DEFAULT, device=device)


def _bar(quiet: bool, form: str) -> Bar:
    """No bar on a terminal that the results stream to."""
    from brivl_search.output import Bar

    return Bar(quiet=quiet or (form != "table" and sys.stdout.isatty()))


def _warn(line: str) -> None:
    from brivl_search.output import warn

    warn(line)


def _texts(given: Sequence[str], source: str | None) -> list[str]:
    from brivl_search.embedding.batches import clean_text

    said = [clean_text(text, "--text") for text in given]
    if source is None:
        return said
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--texts {source}: {reason}: give a text file with a text a line") from None
    said += [line.strip() for line in lines if line.strip()]
    if not said:
        raise UsageError(f"--texts {source} holds no text: write one a line")
    return said


class _Reader:
    """The pictures that could be read, one after the other; what could not is told at the end."""

    def __init__(
        self, found: Pictures, encoder: Encoder, bar: Bar, workers: int | None, batch_size: int, megapixels: float
    ) -> None:
        self._found, self._encoder, self._bar = found, encoder, bar
        self._options: dict[str, Any] = {"workers": workers, "batch_size": batch_size, "max_megapixels": megapixels}
        self._skipped = list(found.skipped)
        self._read = 0

    def __iter__(self) -> Iterator[Embedded]:
        from brivl_search.corpus.walk import Skipped
        from brivl_search.embedding.batches import embed_images

        files = self._found.files
        self._bar.phase("images", len(files))
        for one in embed_images(files, self._encoder, advance=self._bar.advance, **self._options):
            if one.vector is None:
                decoded = one.decoded
                self._skipped.append(Skipped(decoded.file.path, decoded.reason, decoded.detail))
            else:
                self._read += 1
                yield one

    def check(self) -> None:
        """Raises CorpusError if there was no picture that could be read."""
        if not self._read:
            first = self._skipped[0]
            raise CorpusError(f"no image can be read: {first.path}: {first.reason} ({len(self._skipped):,} skipped)")

    def finish(self, quiet: bool, verbose: bool, strict: bool) -> None:
        """Tells what was skipped; raises SkippedItemsError under --strict, CorpusError if nothing was read."""
        from brivl_search.output import print_skips

        if not quiet:
            print_skips(self._skipped, verbose=verbose)
        if strict and self._skipped:
            raise SkippedItemsError(f"{len(self._skipped):,} files were skipped (--strict)")
        self.check()


class _Guesses:
    """Prints the labels of each picture as they come; a table at the end, when its widths are known."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._rows: list[tuple[str, list[Guess]]] = []
        self._header = True

    def add(self, path: str, guesses: list[Guess]) -> None:
        from brivl_search.output import print_csv, print_jsonl

        rows = [
            {"label": guess.label}
            | ({} if guess.probability is None else {"probability": round(guess.probability, 4)})
            | {"score": round(guess.score, 6)}
            for guess in guesses
        ]
        if self.form == "jsonl":
            print_jsonl([{"path": path, **rows[0], "labels": rows}])
        elif self.form == "csv":
            front = [{"path": path, "rank": rank, **row} for rank, row in enumerate(rows, start=1)]
            print_csv(front, list(front[0]), header=self._header)
            self._header = False
        else:
            self._rows.append((path, guesses))

    def finish(self) -> None:
        from rich.text import Text

        from brivl_search.display import harmless
        from brivl_search.output import match_bar, show, table

        if not self._rows:
            return
        out = table()
        out.add_column("image", overflow="fold")
        out.add_column("label", overflow="fold")
        known = self._rows[0][1][0].probability is not None
        if known:
            out.add_column("probability")
        out.add_column("score", justify="right")
        for path, guesses in self._rows:
            for at, guess in enumerate(guesses):
                bar = [match_bar(guess.probability)] if guess.probability is not None else []
                name, label = Text("" if at else harmless(path)), Text(harmless(guess.label))
                out.add_row(name, label, *bar, f"{guess.score:.3f}")
        show(out)


def _match_table(texts: Sequence[str], images: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A matrix for up to four texts and several pictures, else a row for each pair."""
    from rich.text import Text

    from brivl_search.display import harmless
    from brivl_search.output import match_bar, show, table

    out = table()
    known = "match" in rows[0]
    if 1 < len(texts) <= 4 and len(images) > 1:
        out.add_column("image", overflow="fold")
        for text in texts:
            out.add_column(Text(harmless(text)), overflow="fold")
        for at, image in enumerate(images):
            cells = []
            for row in rows[at :: len(images)]:
                cells.append(Text(f"{row['score']:6.3f}") + (Text("  ") + match_bar(row["match"]) if known else Text()))
            out.add_row(Text(harmless(image)), *cells)
    else:
        out.add_column("score", justify="right")
        if known:
            out.add_column("match")
        out.add_column("text", overflow="fold")
        out.add_column("image", overflow="fold")
        for row in rows:
            bar = [match_bar(row["match"])] if known else []
            out.add_row(f"{row['score']:.3f}", *bar, Text(harmless(row["text"])), Text(harmless(row["image"])))
    show(out)
