"""The verb match: how well texts and pictures belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app
from brivl_search.cli.options import (
    DeviceOption,
    EncoderOption,
    PrecisionKind,
    PrecisionOption,
    RuntimeKind,
    RuntimeOption,
)
from brivl_search.cli.reading import NO_PROBABILITY, RowOption, load
from brivl_search.cli.texts import pair_note


@app.command()
def match(
    text: Annotated[list[str], typer.Option("--text", "-t", help="A text; give several for a matrix.")],
    image: Annotated[list[Path], typer.Option("--image", help="A picture; give several for a matrix.")],
    form: RowOption = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
) -> None:
    """Score texts against pictures: cosine, and probability (match)."""
    from brivl_search.corpus.spelling import nothing_known
    from brivl_search.corpus.text import take_text
    from brivl_search.embedding import zero_shot
    from brivl_search.encoders.base import unknown_words
    from brivl_search.output import default_format, print_csv, print_jsonl, say, warn
    from brivl_search.search.words import named

    texts = [take_text(one, "--text") for one in text]
    loaded = load(encoder, device, runtime.value, precision.value)
    matched = zero_shot.match(loaded, texts, [str(path) for path in image])
    for said, cut in zip(texts, loaded.cut_tokens(texts), strict=True):
        if cut:
            warn(f"{said[:40]!r} is longer than the text tower takes: its last {cut} tokens were not seen")
    unknown = unknown_words(loaded, texts)
    for said, words in zip(texts, unknown, strict=True):
        if words:
            rest = "no word of it is known, so there is no match" if nothing_known(said, words) else "not seen"
            warn(f"{said[:40]!r}: the encoder does not know {named(words)}: {rest}")
    rows: list[dict[str, Any]] = []
    for at, (said, words) in enumerate(zip(texts, unknown, strict=True)):
        chances = None if matched.chances is None or nothing_known(said, words) else matched.chances[at].tolist()
        for number, path in enumerate(image):
            known = {} if chances is None else {"match": round(chances[number], 4)}
            rows.append(
                {"text": said, "image": str(path), "score": round(float(matched.cosines[at, number]), 6), **known}
            )
    shown = form.value if form else default_format()
    if shown == "jsonl":
        print_jsonl(rows)
    elif shown == "csv":
        columns = ["text", "image", "score", *(["match"] if any("match" in row for row in rows) else [])]
        print_csv(rows, columns)
    else:
        if matched.chances is None:
            warn(NO_PROBABILITY)
        else:
            say(pair_note(zero_shot.pair_prior(loaded)))
        _match_table(texts, [str(path) for path in image], rows)


def _match_table(texts: Sequence[str], images: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A matrix for up to four texts and several pictures, else a row for each pair."""
    from rich.text import Text

    from brivl_search.display import harmless
    from brivl_search.output import PathCell, match_bar, show, table

    out = table()
    known = any("match" in row for row in rows)
    if 1 < len(texts) <= 4 and len(images) > 1:
        out.add_column("image")
        for text in texts:
            out.add_column(Text(harmless(text)), overflow="fold")
        for at, image in enumerate(images):
            cells = []
            for row in rows[at :: len(images)]:
                score = Text(f"{row['score']:6.3f}")
                cells.append(score + Text("  ") + match_bar(row["match"]) if "match" in row else score)
            out.add_row(PathCell(image), *cells)
    else:
        out.add_column("score", justify="right")
        if known:
            out.add_column("match")
        out.add_column("text", overflow="fold")
        out.add_column("image")
        for row in rows:
            bar = [match_bar(row["match"]) if "match" in row else Text()] if known else []
            out.add_row(f"{row['score']:.3f}", *bar, Text(harmless(row["text"])), PathCell(row["image"]))
    show(out)
