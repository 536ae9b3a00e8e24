"""Verbs that change an index: build-index, sync, add, remove, compact, tune, verify --repair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brivl_search.cli.app import (
    DEFAULT_INDEX,
    CodecKind,
    DeviceOption,
    EncoderOption,
    IndexKind,
    IndexOption,
    Quiet,
    TruncateOption,
    app,
    byte_count,
    caption_fields,
    load_for,
)
from brivl_search.errors import IndexIncompatibleError, SkippedItemsError, UsageError

if TYPE_CHECKING:
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.report import BuildReport

Kind = Annotated[IndexKind | None, typer.Option("--index-type", help="How vectors are searched; auto decides by size.")]
Codec = Annotated[
    CodecKind | None,
    typer.Option("--codec", help="Codes of IVF-PQ: fastscan (faster) or pq8 (searched in place, nothing copied)."),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most bytes for FAISS's part of an index, e.g. 2G: fewer code bytes a row."),
]
Captions = Annotated[
    str | None,
    typer.Option(metavar="FIELDS", help="Fields of captions.jsonl to index [default: zh,en,captions]."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--dataset-format",
        metavar="NAME",
        help="Read it as a dataset: captions, flickr, coco, karpathy, aic-icc, chinese-clip, muge, chinese-clip-lmdb, "
        "webdataset, img2dataset, csv [default: files are recognised, folders are folders of images].",
    ),
]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only this split of a dataset, e.g. test.")]
Images = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Where the images of a dataset lie [default: the customary folders]."),
]
Hidden = Annotated[bool, typer.Option(help="Also files and folders beginning with a dot.")]
Megapixels = Annotated[float, typer.Option(min=0.01, help="Skip larger images.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Decoding processes [default: one per CPU].")]
Batch = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
Boxes = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Boxes of the pictures as regions: JSON lines with image_id and bbox (BriVL's)."),
]
Detector = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A detector's boxes as regions: hf:ORG/NAME, torchvision:NAME[=WEIGHTS]."),
]
Strict = Annotated[bool, typer.Option(help="Exit with 4 if anything was skipped.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Name every skipped file.")]


def _options(
    index_type: IndexKind | None,
    captions: str | None,
    include_hidden: bool,
    max_megapixels: float,
    workers: int | None,
    batch_size: int,
    codec: CodecKind | None,
    memory: str | None,
    dataset_format: str | None = None,
    split: str | None = None,
    images: Path | None = None,
) -> BuildOptions:
    from brivl_search.corpus.sources import DatasetChoice
    from brivl_search.ingest.options import BuildOptions

    return BuildOptions(
        index_type=index_type.value if index_type else None,
        include_hidden=include_hidden,
        workers=workers,
        max_megapixels=max_megapixels,
        caption_fields=caption_fields(captions),
        batch_size=batch_size,
        codec=codec.value if codec else None,
        memory=None if memory is None else byte_count("--memory", memory),
        dataset=DatasetChoice(dataset_format, split, None if images is None else str(images)),
    )


def _regions(boxes: Path | None, detector: str | None) -> str:
    """What --boxes or --detector add to an encoder's name."""
    if boxes is not None and detector is not None:
        raise UsageError("--boxes and --detector exclude each other: regions come from one of them")
    if boxes is not None:
        return f"+boxes={boxes.absolute()}"
    return "" if detector is None else f"+detector={detector}"


def _finish(report: BuildReport, index: Path, quiet: bool, verbose: bool, strict: bool, encoder: Any = None) -> None:
    from brivl_search.output import say
    from brivl_search.output.build import print_build

    if not quiet:
        print_build(report, str(index), verbose=verbose)
        boxes: Any = getattr(encoder, "boxes", None)
        if without := getattr(boxes, "without", 0):
            say(f"{without:,} new images are not in {boxes.path}: the fixed grid served as their regions")
    if strict and (report.skipped or report.bad_captions):
        raise SkippedItemsError(
            f"{len(report.skipped)} files and {len(report.bad_captions)} caption lines were skipped (--strict)"
        )


@app.command("build-index")
def build_index(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of images, searched in depth; datasets (tar, json, ...)."),
    ],
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    truncate_dim: TruncateOption = None,
    boxes: Boxes = None,
    detector: Detector = None,
    index_type: Kind = None,
    codec: Codec = None,
    memory: Memory = None,
    captions: Captions = None,
    dataset_format: Format = None,
    split: Split = None,
    images: Images = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Index the images (and captions.jsonl) under FOLDER, or a dataset; run it again to take in what has changed."""
    from brivl_search.ingest.run import build_index as build
    from brivl_search.output import Bar

    choices = _options(
        index_type,
        captions,
        include_hidden,
        max_megapixels,
        workers,
        batch_size,
        codec,
        memory,
        dataset_format,
        split,
        images,
    )
    loaded = load_for(index, encoder, device, _regions(boxes, detector), truncate_dim)
    with Bar(quiet=quiet) as bar:
        report = build(folders, index, loaded, choices, bar)
    _finish(report, index, quiet, verbose, strict, loaded)


@app.command()
def sync(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER...]", help="[default: all folders of the index]")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    captions: Captions = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring an existing index in step with its folders: take in what is new or changed, forget what is gone."""
    from brivl_search.corpus.sources import DatasetChoice
    from brivl_search.index import IndexReader
    from brivl_search.ingest.run import build_index as build
    from brivl_search.output import Bar

    choices = _options(None, captions, include_hidden, max_megapixels, workers, batch_size, None, None)
    with IndexReader.open(index) as reader:
        roots = [absolute for _, absolute in reader.info.roots]
    if not (folders or roots):
        raise UsageError(f"the index at {index} remembers no folder: name one, e.g. brivl-search sync ./images")
    choices = replace(
        choices, known_datasets={path: DatasetChoice.of(how) for path, how in reader.info.datasets.items()}
    )
    known = {absolute: given for given, absolute in reader.info.roots if Path(given).absolute() == Path(absolute)}
    loaded = load_for(index, None, device)
    with Bar(quiet=quiet) as bar:
        report = build(folders or [known.get(root, root) for root in roots], index, loaded, choices, bar)
    _finish(report, index, quiet, verbose, strict, loaded)


@app.command()
def add(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, folders of them, caption files (.jsonl), datasets.")
    ],
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    truncate_dim: TruncateOption = None,
    boxes: Boxes = None,
    detector: Detector = None,
    captions: Captions = None,
    dataset_format: Format = None,
    split: Split = None,
    images: Images = None,
    include_hidden: Hidden = False,
    max_megapixels: Megapixels = 178,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Add images, folders or captions to the index; nothing is removed."""
    from brivl_search.ingest.run import add as add_paths
    from brivl_search.output import Bar

    choices = _options(
        None, captions, include_hidden, max_megapixels, workers, batch_size, None, None, dataset_format, split, images
    )
    loaded = load_for(index, encoder, device, _regions(boxes, detector), truncate_dim)
    with Bar(quiet=quiet) as bar:
        report = add_paths(paths, index, loaded, choices, bar)
    _finish(report, index, quiet, verbose, strict, loaded)


@app.command()
def remove(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH...]", help="Images or folders, which need not exist any more.")
    ] = None,
    under: Annotated[
        list[Path] | None, typer.Option("--under", metavar="FOLDER", help="All that was indexed below this folder.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="The item with exactly this key.")] = None,
    index: IndexOption = DEFAULT_INDEX,
    quiet: Quiet = False,
) -> None:
    """Forget images (and their captions); the files themselves are left alone."""
    from brivl_search.ingest.maintenance import remove as remove_items
    from brivl_search.output import say
    from brivl_search.output.build import say_state

    done = remove_items(index, paths=paths or (), under=under or (), keys=key or ())
    if not quiet:
        say(f"{done.images:,} images and {done.captions:,} captions removed")
        say_state(index, done.commit)


@app.command()
def compact(
    index: IndexOption = DEFAULT_INDEX,
    codec: Codec = None,
    memory: Memory = None,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Merge small shards, drop removed rows, train the quantizer anew where the collection has outgrown it."""
    from brivl_search.index import IndexReader, gpu
    from brivl_search.ingest.maintenance import compact as compact_index
    from brivl_search.output import Bar, say

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
    index: IndexOption = DEFAULT_INDEX,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure IVF-PQ against exact search on real queries; store the fastest setting that reaches the recall."""
    from brivl_search.index import gpu
    from brivl_search.ingest.maintenance import tune as tune_index
    from brivl_search.output import Bar, show, warn
    from brivl_search.output.index import tuning_table

    vectors = None
    if queries is not None:
        try:
            texts = [line.strip() for line in queries.read_text("utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--queries {queries}: {error}") from None
        if not texts:
            raise UsageError(f"--queries {queries} holds no query: write one a line")
        vectors = load_for(index, None, device).encode_texts(texts)
    gpu.choose(device)
    with Bar(quiet=quiet) as bar:
        bar.phase("tuning", None)
        report = tune_index(index, recall=recall, queries=vectors, progress=bar.note)
    for note in report.notes:
        warn(note)
    if not quiet:
        show(tuning_table(report.found))


@app.command()
def verify(
    index: IndexOption = DEFAULT_INDEX,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop missing and damaged shards; the next sync embeds their files again.")
    ] = False,
) -> None:
    """Check every shard's checksum and row counts against the catalog."""
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
    if not report.ok:
        raise IndexIncompatibleError(
            f"the index at {index} is damaged: brivl-search verify --repair --index {index} drops damaged shards, and "
            "sync embeds their files again; if that does not help, delete it and run build-index"
        )
