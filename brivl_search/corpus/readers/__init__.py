"""Datasets in the layouts that people have, each recognised by its files, each read where it lies.

    base.py              what a reader is; images found in the customary folders, never outside of them
    captions_jsonl.py    captions: captions.jsonl
    flickr.py            flickr: token files of Flickr8k/30k(-CN), COCO-CN
    coco.py              coco: COCO captions JSON, COCO-CN JSON; karpathy: dataset_*.json
    aic_icc.py           aic-icc: AI Challenger's Chinese captions
    chinese_clip.py      chinese-clip: *_texts.jsonl + *_imgs.tsv; muge: *_queries.jsonl + *_imgs.tsv
    chinese_clip_lmdb.py chinese-clip-lmdb: lmdb/SPLIT/{imgs,pairs}
    webdataset.py        webdataset: tars; img2dataset: folders of files
    csv_table.py         csv: tables with a header, comma or tab

A file is read as a dataset where it is named; a folder only where it is asked for (`build-index --dataset-format`,
`eval --dataset`).
"""

from __future__ import annotations

import os
from pathlib import Path

from brivl_search.corpus.readers.base import Choice, Reader
from brivl_search.corpus.walk import CAPTIONS_NAME
from brivl_search.display import printable
from brivl_search.errors import CorpusError, UsageError


def reader_classes() -> dict[str, type[Reader]]:
    """Name -> reader, in the order in which they are asked."""
    from brivl_search.corpus.readers import (
        aic_icc,
        captions_jsonl,
        chinese_clip,
        chinese_clip_lmdb,
        coco,
        csv_table,
        flickr,
        webdataset,
    )

    classes: tuple[type[Reader], ...] = (
        captions_jsonl.CaptionsReader,
        flickr.FlickrReader,
        coco.CocoReader,
        coco.KarpathyReader,
        aic_icc.AicIccReader,
        chinese_clip.ChineseClipReader,
        chinese_clip.MugeReader,
        chinese_clip_lmdb.ChineseClipLmdbReader,
        webdataset.WebDatasetReader,
        webdataset.Img2DatasetReader,
        csv_table.CsvReader,
    )
    return {one.name: one for one in classes}


def recognise(path: Path | str) -> list[str]:
    """Names of the formats that a file or folder is laid out in. Raises: CorpusError if it cannot be read."""
    absolute = os.path.abspath(path)
    try:
        return [name for name, one in reader_classes().items() if one.recognises(absolute)]
    except OSError as error:
        raise CorpusError(f"cannot read {printable(absolute)}: {error.strerror or error}") from error


def open_dataset(path: Path | str, format: str | None = None, choice: Choice | None = None) -> Reader:
    """The reader of a dataset.

    Args:
        path: a file or folder.
        format: its layout; None: it is recognised, captions.jsonl before any other.
        choice: split, image folder and fields.

    Raises:
        UsageError: nothing there, a format that is not known, none or several that fit.
        CorpusError: it cannot be read.
    """
    given, absolute = printable(os.fspath(path)), os.path.abspath(path)
    classes = reader_classes()
    if format is not None and format not in classes:
        raise UsageError(f"`dataset_format` {format}: use one of {', '.join(classes)}")
    if not os.path.lexists(absolute):
        raise UsageError(f"no such folder or file: {given}: check the spelling of the path")
    if format is None:
        fits = recognise(absolute)
        if os.path.isdir(absolute) and "captions" in fits:
            fits = ["captions"]
        if not fits:
            raise UsageError(
                f"{given} has no {CAPTIONS_NAME} and is no dataset of a known layout: `dataset_format` names one of "
                f"{', '.join(classes)}"
                if os.path.isdir(absolute)
                else f"{given} is no dataset of a known layout ({', '.join(classes)})"
            )
        if len(fits) > 1:
            raise UsageError(f"{given} can be read as {' or '.join(fits)}: choose one with `dataset_format`")
        format = fits[0]
    try:
        return classes[format](absolute, choice or Choice())
    except OSError as error:
        raise CorpusError(f"cannot read {given}: {error.strerror or error}") from error
