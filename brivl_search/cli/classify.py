"""The verb classify: pictures into classes that are given by name only."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brivl_search.cli.app import app
from brivl_search.cli.options import (
    Batch,
    DeviceOption,
    EncoderOption,
    Encoding,
    Hidden,
    Megapixels,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    RuntimeKind,
    RuntimeOption,
    Strict,
    Verbose,
    Workers,
)
from brivl_search.cli.reading import NO_PROBABILITY, Reader, RowOption, bar_beside, load, warn_beside

if TYPE_CHECKING:
    from brivl_search.embedding.zero_shot import Guess


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", metavar="FILE", help="A label a line; other names of the same thing after tabs."),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option("--template", metavar="TEXT", help="A sentence with {} for the label, instead of the built-in."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Labels for each image.")] = 3,
    encoding: Encoding = None,
    form: RowOption = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sort images into classes given by name, in Chinese or English."""
    from brivl_search.corpus.encodings import check_encoding
    from brivl_search.embedding import zero_shot
    from brivl_search.embedding.batches import embed_images
    from brivl_search.embedding.pictures import find_pictures
    from brivl_search.output import default_format

    classes = zero_shot.read_labels(labels, check_encoding(encoding))
    zero_shot.check_templates(template or ())
    found = find_pictures(images, include_hidden=include_hidden)
    loaded = load(encoder, device, runtime.value, precision.value)
    shown = form.value if form else default_format()
    printer = _Guesses(shown)
    with bar_beside(quiet, shown) as bar:
        bar.phase("labels", len(classes))
        vectors = zero_shot.class_vectors(loaded, [label.names for label in classes], template or ())
        if loaded.calibration is None and not quiet:
            warn_beside(NO_PROBABILITY)
        if (unknown := zero_shot.unknown_labels(loaded, classes)) and not quiet:
            named = ", ".join(f"{name!r} ({' '.join(words)})" for name, words in list(unknown.items())[:8])
            warn_beside(f"{len(unknown):,} labels hold words that the encoder does not know: {named}")
        read = Reader(found, partial(embed_images, encoder=loaded), bar, workers, batch_size, max_megapixels)
        for one in read:
            assert one.vector is not None
            guesses = zero_shot.classify(one.vector, classes, vectors, loaded.calibration, top_k)
            printer.add(found.as_given(one.decoded.file.path), guesses)
    printer.finish()
    read.finish(quiet, verbose, strict)


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
        from brivl_search.output import PathCell, match_bar, show, table

        if not self._rows:
            return
        out = table()
        out.add_column("image")
        out.add_column("label", overflow="fold")
        known = self._rows[0][1][0].probability is not None
        if known:
            out.add_column("probability")
        out.add_column("score", justify="right")
        for path, guesses in self._rows:
            for at, guess in enumerate(guesses):
                bar = [match_bar(guess.probability)] if guess.probability is not None else []
                label = Text(harmless(guess.label))
                out.add_row("" if at else PathCell(path), label, *bar, f"{guess.score:.3f}")
        show(out)
