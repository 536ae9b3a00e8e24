"""Verbs that keep an index in order: remove, compact, tune, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from brivl_search.cli.app import app, byte_count, load_for
from brivl_search.cli.options import DEFAULT_INDEX, Codec, DeviceOption, Encoding, IndexOption, Memory, Quiet
from brivl_search.cli.reading import read_lines
from brivl_search.errors import IndexIncompatibleError


@app.command()
def remove(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Images or folders, which need not exist any more.")
    ] = None,
    under: Annotated[
        list[Path] | None, typer.Option("--under", metavar="FOLDER", help="All that was indexed below this folder.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="The item with exactly this key.")] = None,
    index: IndexOption = DEFAULT_INDEX,
    quiet: Quiet = False,
) -> None:
    """Drop images and their captions from the index. The files stay."""
    from brivl_search.ingest.maintenance import remove as remove_items
    from brivl_search.output import say
    from brivl_search.output.build import say_state

    done = remove_items(index, paths=paths or (), under=under or (), keys=key or ())
    if not quiet:
        say(f"{done.images:,} images and {done.captions:,} captions removed")
        if done.comes_back:
            say(
                "the files stay where they are: the next sync of their folder takes them in again; to keep them out: "
                "brivl-search sync --exclude PATTERN"
            )
        say_state(index, done.commit)


@app.command()
def compact(
    index: IndexOption = DEFAULT_INDEX,
    codec: Codec = None,
    memory: Memory = None,
    no_hub_correction: Annotated[
        bool, typer.Option("--no-hub-correction", help="Drop the index's [default: take what models calibrate found].")
    ] = False,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Merge small shards, drop removed rows, and retrain the quantizer where needed."""
    from brivl_search.index import IndexReader, gpu
    from brivl_search.ingest.maintenance import compact as compact_index
    from brivl_search.output import Bar, say
    from brivl_search.output.index import correction_facts

    with IndexReader.open(index) as reader:
        before = reader.info
    gpu.choose(device)
    with Bar(quiet=quiet) as bar:
        bar.phase("compacting", None)
        report = compact_index(
            index,
            encode=lambda texts: load_for(index, None, device).encode_texts(texts),
            codec=codec.value if codec else None,
            memory=None if memory is None else byte_count("--memory", memory),
            correct_hubs=not no_hub_correction,
            progress=bar.note,
        )
    if quiet:
        return
    for note in report.notes:
        say(note)
    with IndexReader.open(index) as reader:
        after = reader.info
    if not report.changed:
        say(f"index {index}: nothing to compact")
    if before.image.correction != after.image.correction:
        say(f"hub correction: {correction_facts(after.image.correction) or 'none any more'}")
    for name, old, new in (("images", before.image, after.image), ("captions", before.text, after.text)):
        if report.changed and (old.shards or new.shards):
            say(
                f"{name}: {len(old.shards)} → {len(new.shards)} shards, {old.removed:,} → {new.removed:,} removed "
                f"rows, {old.bytes:,} → {new.bytes:,} bytes"
                + (", quantizer trained anew" if report.of("image" if name == "images" else "text").trained else "")
            )


@app.command()
def tune(
    recall: Annotated[float, typer.Option(help="recall@10 of exact search to reach, at most 1.")] = 0.99,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text queries, one a line, to measure with [default: the index's captions]."),
    ] = None,
    encoding: Encoding = None,
    index: IndexOption = DEFAULT_INDEX,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Find the fastest IVF-PQ setting that reaches a recall, on real queries."""
    from brivl_search.index import gpu
    from brivl_search.ingest.maintenance import tune as tune_index
    from brivl_search.output import Bar, show, warn
    from brivl_search.output.index import tuning_table

    vectors = None
    if queries is not None:
        texts = read_lines("--queries", str(queries), encoding, "a query")
        encoder = load_for(index, None, device)
        _warn_unknown(encoder, texts)
        vectors = encoder.encode_texts(texts)
    gpu.choose(device)
    with Bar(quiet=quiet) as bar:
        bar.phase("tuning", None)
        report = tune_index(index, recall=recall, queries=vectors, progress=bar.note)
    for note in report.notes:
        warn(note)
    if not quiet:
        show(tuning_table(report.found))


def _warn_unknown(encoder: Any, texts: list[str]) -> None:
    """Names words that the encoder does not know, and counts queries that are made of nothing else."""
    from brivl_search.corpus.spelling import nothing_known
    from brivl_search.encoders.base import unknown_words
    from brivl_search.output import warn
    from brivl_search.search.words import named

    found = unknown_words(encoder, texts)
    if words := list(dict.fromkeys(word for one in found for word in one)):
        some = sum(map(bool, found))
        warn(f"--queries: {some:,} of {len(texts):,} hold words that the encoder does not know: {named(words)}")
    if empty := sum(nothing_known(text, one) for text, one in zip(texts, found, strict=True)):
        warn(f"--queries: {empty:,} hold no word that the encoder knows: they all are one query to it")


@app.command()
def verify(
    index: IndexOption = DEFAULT_INDEX,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop missing and damaged shards; the next sync embeds their files again.")
    ] = False,
) -> None:
    """Check every shard against the catalog; --repair drops damaged ones."""
    from brivl_search.index import verify as check
    from brivl_search.ingest.maintenance import repair as repair_index
    from brivl_search.output import say
    from brivl_search.output.index import print_verification

    if repair:
        lost, commit = repair_index(index)
        for name, items in lost.items():
            say(f"dropped {name}: {items:,} items, which the next sync takes in again")
        if not lost:
            say(f"no shard to drop; generation {commit.generation}")
    report = check(index)
    print_verification(report)
    if report.ok:
        _say_stale(index)
    if not report.ok:
        raise IndexIncompatibleError(
            f"the index at {index} is damaged: brivl-search verify --repair --index {index} drops damaged shards, and "
            "sync embeds their files again; if that does not help, delete it and run build-index"
        )


def _say_stale(index: Path) -> None:
    """A note where captions were embedded before texts were read as they are now; nothing if the encoder is away."""
    from brivl_search.errors import BrivlSearchError
    from brivl_search.ingest.spelled import stale_captions
    from brivl_search.output import say

    try:
        stale = stale_captions(index, load_for(index, None, "cpu"))
    except (BrivlSearchError, ImportError):
        return
    if stale:
        say(
            f"note: {stale:,} captions were embedded by an older version, which read their characters otherwise: "
            f"brivl-search sync --index {index} embeds them anew"
        )
