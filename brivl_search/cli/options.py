"""Options that several verbs share, and the words that they take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class HitFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    paths = "paths"


class ReportFormat(StrEnum):
    table = "table"
    json = "json"


class IndexKind(StrEnum):
    auto = "auto"
    ivfpq = "ivfpq"
    exact = "exact"


class CodecKind(StrEnum):
    fastscan = "fastscan"
    pq8 = "pq8"


class RuntimeKind(StrEnum):
    auto = "auto"
    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class PrecisionKind(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class GenerateKind(StrEnum):
    zh = "zh"
    en = "en"
    both = "both"
    none = "none"


class Target(StrEnum):
    auto = "auto"
    images = "images"
    texts = "texts"
    image = "image"
    text = "text"


IndexOption = Annotated[
    Path, typer.Option("--index", "-i", envvar="BRIVL_SEARCH_INDEX", help="Folder of the index.", show_envvar=True)
]


EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        envvar="BRIVL_SEARCH_ENCODER",
        help="Bundled name, checkpoint folder, hf:ORG/NAME, official:PATH, plug-in (see: models list).",
        show_envvar=True,
    ),
]


TruncateOption = Annotated[
    int | None,
    typer.Option("--truncate-dim", metavar="N", help="Keep N dimensions of the vectors; Matryoshka models only."),
]


RerankWith = Annotated[
    str | None,
    typer.Option(
        "--rerank-with",
        metavar="MATCHER",
        help="Re-order the first hits with this matcher: its folder, or hf:ORG/NAME (BLIP, BLIP-2, ViLT).",
    ),
]


KeepRegions = Annotated[
    str | None,
    typer.Option(
        "--keep-regions",
        metavar="MATCHER",
        help="Keep what this matcher reads of pictures, so that --rerank-with need not read them again; none: no more.",
    ),
]


RerankTop = Annotated[int, typer.Option("--rerank-top", min=1, metavar="N", help="How many hits it re-orders.")]


CaptionerOption = Annotated[
    str | None,
    typer.Option(
        "--captioner",
        metavar="NAME",
        help="What writes: a folder, or hf:ORG/NAME (BLIP, BLIP-2, GIT) [default: the bundled one].",
    ),
]


DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]


RuntimeOption = Annotated[
    RuntimeKind,
    typer.Option(
        "--runtime",
        envvar="BRIVL_SEARCH_RUNTIME",
        help="What computes the towers; onnx and openvino need their extras, and export a tower once.",
        show_envvar=True,
    ),
]


PrecisionOption = Annotated[PrecisionKind, typer.Option("--precision", help="Of the towers; int8 by onnx or openvino.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")]


ReportOption = Annotated[ReportFormat | None, typer.Option("--format", help="table, or json (default in a pipe).")]


DEFAULT_INDEX = Path("indexes/default")


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
    typer.Option(
        metavar="FIELDS", help="Fields of captions.jsonl to index, remembered of each folder [default: zh,en,captions]."
    ),
]


Generate = Annotated[
    GenerateKind | None,
    typer.Option(
        "--generate-captions",
        help="Write captions for photos without any, marked as generated; none forgets them.",
    ),
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


Encoding = Annotated[
    str | None,
    typer.Option("--encoding", metavar="NAME", help="Of text files that are not UTF-8: gb18030, big5, utf-16, ..."),
]


Hidden = Annotated[bool, typer.Option(help="Also files and folders beginning with a dot.")]


# Of a folder of an index: None is what the index remembers, and at first the default.
RememberedHidden = Annotated[
    bool | None,
    typer.Option("--include-hidden/--no-include-hidden", help="Also files and folders beginning with a dot."),
]


Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Pass over what fits, as in .gitignore: '*.png', 'drafts/'. Remembered; '' forgets it. Repeatable.",
    ),
]


RememberedMegapixels = Annotated[
    float | None, typer.Option("--max-megapixels", min=0.01, help="Skip larger images [default: 178].")
]


Move = Annotated[
    tuple[str, str] | None,
    typer.Option("--move", metavar="OLD NEW", help="A folder of the index that is elsewhere now."),
]


Megapixels = Annotated[float, typer.Option(min=0.01, help="Skip larger images.")]


Workers = Annotated[int | None, typer.Option(min=0, help="Decoding processes [default: one per CPU].")]


Batch = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]


Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Decode and embed on the hosts of a Ray cluster: HOST:PORT of its head, local to start one "
        "[alone: the cluster of RAY_ADDRESS, or that this machine is in].",
    ),
]


GpusPerWorker = Annotated[
    float | None,
    typer.Option(min=0, metavar="N", help="With --cluster: GPUs of a worker, such as 1 or 0.5 [default: 0]."),
]


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
