"""Verbs that take pictures and captions in: build-index, sync, add."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from brivl_search.cli.app import app, byte_count, caption_fields, load_for, seconds_so_far
from brivl_search.cli.options import (
    DEFAULT_INDEX,
    Batch,
    Boxes,
    CaptionerOption,
    Captions,
    Cluster,
    Codec,
    CodecKind,
    Detector,
    DeviceOption,
    EncoderOption,
    Encoding,
    Exclude,
    Format,
    Generate,
    GenerateKind,
    GpusPerWorker,
    Images,
    IndexKind,
    IndexOption,
    KeepRegions,
    Kind,
    Memory,
    Move,
    PrecisionKind,
    PrecisionOption,
    Quiet,
    RememberedHidden,
    RememberedMegapixels,
    RuntimeKind,
    RuntimeOption,
    Split,
    Strict,
    TruncateOption,
    Verbose,
    Workers,
)
from brivl_search.errors import SkippedItemsError, UsageError

if TYPE_CHECKING:
    from brivl_search.ingest.generated import Generating
    from brivl_search.ingest.options import BuildOptions
    from brivl_search.ingest.report import BuildReport


def _options(
    index_type: IndexKind | None,
    captions: str | None,
    include_hidden: bool | None,
    exclude: list[str] | None,
    move: tuple[str, str] | None,
    max_megapixels: float | None,
    workers: int | None,
    batch_size: int,
    codec: CodecKind | None,
    memory: str | None,
    dataset_format: str | None = None,
    split: str | None = None,
    images: Path | None = None,
    *,
    encoding: str | None = None,
    keep_regions: str | None = None,
) -> BuildOptions:
    from brivl_search.corpus.encodings import check_encoding
    from brivl_search.corpus.sources import DatasetChoice
    from brivl_search.ingest.options import BuildOptions

    return BuildOptions(
        index_type=index_type.value if index_type else None,
        include_hidden=include_hidden,
        exclude=None if exclude is None else tuple(pattern for pattern in exclude if pattern),
        moves=() if move is None else (move,),
        workers=workers,
        max_megapixels=max_megapixels,
        caption_fields=caption_fields(captions),
        batch_size=batch_size,
        codec=codec.value if codec else None,
        memory=None if memory is None else byte_count("--memory", memory),
        encoding=check_encoding(encoding),
        keep_regions=keep_regions,
        dataset=DatasetChoice(dataset_format, split, None if images is None else str(images), encoding),
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
        print_build(report, str(index), verbose=verbose, seconds=seconds_so_far())
        boxes: Any = getattr(encoder, "boxes", None)
        if without := getattr(boxes, "without", 0):
            say(f"{without:,} new images are not in {boxes.path}: the fixed grid served as their regions")
        if report.commit is not None and report.commit.generation == 1:
            say(f'search it: brivl-search query "a dog on grass"{"" if index == DEFAULT_INDEX else f" -i {index}"}')
    if strict and (report.skipped or report.bad_captions):
        raise SkippedItemsError(
            f"{len(report.skipped)} files and {len(report.bad_captions)} caption lines were skipped (--strict)"
        )


def _generating(kind: GenerateKind, name: str | None, encoder: Any, device: str) -> Generating:
    """What --generate-captions asks for; the captioner is opened before anything is scanned."""
    from brivl_search.embedding.captioning import Describer
    from brivl_search.encoders.captioners import default_captioner, load_captioner
    from brivl_search.encoders.captioning import check_languages
    from brivl_search.ingest.generated import Generating

    if kind is GenerateKind.none:
        return Generating()
    name = name or default_captioner()
    captioner = load_captioner(name, encoder, device=device)
    languages = ["zh", "en"] if kind is GenerateKind.both else [kind.value]
    check_languages(captioner, languages)
    # The towers' cosine orders what one captioner wrote; it is not asked where it does not count.
    return Generating(tuple(languages), Describer(captioner, encoder if captioner.cosine_weight else None))


class _AddressOrNone(TyperCommand):
    """--cluster needs no value: alone it means the cluster that is there."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = args.index("--cluster") if "--cluster" in args else -1
        if at >= 0 and (at + 1 == len(args) or args[at + 1].startswith("-")):
            args = [*args[: at + 1], "auto", *args[at + 1 :]]
        return super().parse_args(ctx, args)


@app.command("build-index", cls=_AddressOrNone)
def build_index(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders of images, searched in depth; datasets (tar, json, ...)."),
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
    generate: Generate = None,
    captioner: CaptionerOption = None,
    encoding: Encoding = None,
    dataset_format: Format = None,
    split: Split = None,
    images: Images = None,
    include_hidden: RememberedHidden = None,
    exclude: Exclude = None,
    move: Move = None,
    keep_regions: KeepRegions = None,
    max_megapixels: RememberedMegapixels = None,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    cluster: Cluster = None,
    gpus_per_worker: GpusPerWorker = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Index the images and captions in folders, or a dataset. Run it again after any change."""
    from brivl_search.ingest.run import build_index as build
    from brivl_search.output import Bar

    choices = _options(
        index_type,
        captions,
        include_hidden,
        exclude,
        move,
        max_megapixels,
        workers,
        batch_size,
        codec,
        memory,
        dataset_format,
        split,
        images,
        encoding=encoding,
        keep_regions=keep_regions,
    )
    if gpus_per_worker is not None and cluster is None:
        raise UsageError("--gpus-per-worker is for --cluster: give that too, or leave it out")
    if captioner is not None and generate in (None, GenerateKind.none):
        raise UsageError("--captioner is for --generate-captions: give that too, or leave it out")
    loaded = load_for(index, encoder, device, _regions(boxes, detector), truncate_dim, runtime.value, precision.value)
    generating = None if generate is None else _generating(generate, captioner, loaded, device)
    with Bar(quiet=quiet) as bar:
        if cluster is None:
            report = build(folders, index, loaded, choices, bar, generating)
        else:
            from brivl_search.cluster.build import build_on_cluster
            from brivl_search.cluster.session import connect

            load = {"device": device, "runtime": runtime.value, "precision": precision.value}
            gpus = gpus_per_worker or 0.0
            with connect(cluster) as session:
                report = build_on_cluster(
                    folders, index, loaded, choices, bar, session, load=load, gpus=gpus, generating=generating
                )
    _finish(report, index, quiet, verbose, strict, loaded)


@app.command()
def sync(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="[default: all folders of the index]")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    captions: Captions = None,
    encoding: Encoding = None,
    include_hidden: RememberedHidden = None,
    exclude: Exclude = None,
    move: Move = None,
    keep_regions: KeepRegions = None,
    max_megapixels: RememberedMegapixels = None,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring an index in step with its folders: add what is new, drop what is gone."""
    from brivl_search.ingest.run import build_index as build
    from brivl_search.ingest.sync import check
    from brivl_search.output import Bar

    choices = _options(
        None,
        captions,
        include_hidden,
        exclude,
        move,
        max_megapixels,
        workers,
        batch_size,
        None,
        None,
        encoding=encoding,
        keep_regions=keep_regions,
    )
    check(index, folders or ())
    loaded = load_for(index, None, device, runtime=runtime.value, precision=precision.value)
    with Bar(quiet=quiet) as bar:
        report = build(folders or (), index, loaded, choices, bar)
    _finish(report, index, quiet, verbose, strict, loaded)


@app.command()
def add(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Images, folders of them, caption files (.jsonl), datasets.")
    ],
    index: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    truncate_dim: TruncateOption = None,
    boxes: Boxes = None,
    detector: Detector = None,
    captions: Captions = None,
    encoding: Encoding = None,
    dataset_format: Format = None,
    split: Split = None,
    images: Images = None,
    include_hidden: RememberedHidden = None,
    exclude: Exclude = None,
    max_megapixels: RememberedMegapixels = None,
    workers: Workers = None,
    batch_size: Batch = 64,
    strict: Strict = False,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = RuntimeKind.auto,
    precision: PrecisionOption = PrecisionKind.auto,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Add images, folders or captions. Nothing is removed."""
    from brivl_search.ingest.run import add as add_paths
    from brivl_search.output import Bar

    choices = _options(
        None,
        captions,
        include_hidden,
        exclude,
        None,
        max_megapixels,
        workers,
        batch_size,
        None,
        None,
        dataset_format,
        split,
        images,
        encoding=encoding,
    )
    loaded = load_for(index, encoder, device, _regions(boxes, detector), truncate_dim, runtime.value, precision.value)
    with Bar(quiet=quiet) as bar:
        report = add_paths(paths, index, loaded, choices, bar)
    _finish(report, index, quiet, verbose, strict, loaded)
