"""The verb embed: pictures and texts to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from brivl_search.cli.reading import Reader, bar_beside, load, warn_beside
from brivl_search.errors import UsageError

if TYPE_CHECKING:
    from brivl_search.output import Bar


class FloatKind(StrEnum):
    float32 = "float32"
    float16 = "float16"


@app.command()
def embed(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")
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
    encoding: Encoding = None,
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
    """Turn images or texts into unit vectors."""
    from brivl_search.embedding.batches import embed_images, embed_texts, numbers
    from brivl_search.embedding.pictures import find_pictures
    from brivl_search.encoders.base import unknown_words
    from brivl_search.output import print_jsonl
    from brivl_search.transfer.vector_file import VectorFile, image_record

    said = _texts(text or (), texts, encoding)
    if not images and not said:
        raise UsageError("nothing to embed: name images or folders, or give --text TEXT or --texts FILE")
    if images and said and out is not None:
        raise UsageError("--out holds either images or texts, as `import` takes them: run embed once for each")
    found = find_pictures(images, include_hidden=include_hidden) if images else None
    if out is not None and out.suffix != ".npy":
        raise UsageError(f"--out {out}: give a name that ends in .npy; the records go beside it, in .jsonl")
    loaded = load(encoder, device, runtime.value, precision.value)
    read = None

    def rows(bar: Bar) -> Iterator[tuple[dict[str, Any], Any]]:
        nonlocal read
        if found is not None:
            read = Reader(found, partial(embed_images, encoder=loaded), bar, workers, batch_size, max_megapixels)
            for one in read:
                yield image_record(one.decoded, None if out is None else out.parent), one.vector
        if said:
            bar.phase("texts", len(said))
            for line, vector in embed_texts(said, loaded):
                bar.advance(1)
                yield {"text": line}, vector

    with bar_beside(quiet, "table" if out else "jsonl") as bar:
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
    if said and not quiet:
        _warn_unknown(said, unknown_words(loaded, said))
    if said and not quiet and (cut := sum(n > 0 for n in loaded.cut_tokens(said))):
        warn_beside(f"{cut:,} texts are longer than the text tower takes; their ends were not seen")
    if read is not None:
        read.finish(quiet, verbose, strict)
    if out is not None and not quiet:
        from brivl_search.output import say

        modality = "image" if found is not None else "text"
        say(f"{out}: {file.rows:,} × {loaded.dim} {dtype.value}, records in {file.records}, by {loaded.name}")
        say(f"to index them: brivl-search import --vectors {out} --records {file.records} --modality {modality}")


def _warn_unknown(texts: Sequence[str], unknown: Sequence[Sequence[str]]) -> None:
    """Says which words the encoder does not know, and how many texts it knows nothing of."""
    from brivl_search.corpus.spelling import nothing_known
    from brivl_search.search.words import named, say_unknown

    words = list(dict.fromkeys(word for some in unknown for word in some))
    nothing = sum(nothing_known(text, some) for text, some in zip(texts, unknown, strict=True))
    if len(texts) == 1 and words:
        warn_beside(say_unknown(words, not nothing, "embedded"))
    elif words:
        many = sum(map(bool, unknown))
        warn_beside(
            f"{many:,} texts hold words that the encoder does not know ({named(words)}); {nothing:,} of them "
            "hold no other"
        )


def _texts(given: Sequence[str], source: str | None, encoding: str | None) -> list[str]:
    from brivl_search.cli.reading import read_lines
    from brivl_search.corpus.text import take_text

    said = [take_text(text, "--text") for text in given]
    if source is None:
        return said
    said += read_lines("--texts", source, encoding, "a text")
    return said
