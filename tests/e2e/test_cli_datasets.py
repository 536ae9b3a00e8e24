"""Datasets through the command line: tar, TSV with JSON lines, LMDB; built, queried, evaluated, synced, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import datasets
from tests.support.datasets import EN, LAYOUTS, ZH
from tests.support.site import Ended, refused

Cli = Callable[..., Ended]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The working folder of `cli`: empty, these tests make their own indexes."""
    return tmp_path


@pytest.mark.parametrize("make", [datasets.webdataset, datasets.muge, datasets.chinese_clip_lmdb])
def test_build_query_eval_sync(make: Callable[[Path], Path], cli: Cli, tmp_path: Path, tiny_checkpoint: Path) -> None:
    name, texts = LAYOUTS[make][0], EN if make is datasets.webdataset else ZH
    data, index = make(tmp_path / "data"), str(tmp_path / "index")
    encoder = ("--encoder", str(tiny_checkpoint))
    built = cli("build-index", str(data), "--dataset-format", name, "--index", index, *encoder)
    assert built.code == 0 and built.out == "", built
    assert "3 images found: 3 embedded" in built.err and "3 captions: 3 embedded" in built.err
    hits = [json.loads(line) for line in cli("query", texts[1], "--index", index).out.splitlines()]
    assert len(hits) == 3 and all("::" in hit["path"] for hit in hits)
    answer = cli("query", "--image", hits[0]["path"], "--target", "images", "-k", "1", "--index", index)
    assert json.loads(answer.out)["path"] == hits[0]["path"]
    told = cli("query", "--image", hits[0]["path"], "-k", "3", "--index", index)
    assert {json.loads(line)["text"] for line in told.out.splitlines()} == set(texts)
    measured = json.loads(cli("eval", "--index", index, "--recall-at", "1", "--format", "json").out)
    alone = cli("eval", "--dataset", str(data), "--recall-at", "1", "--format", "json", *encoder)
    assert alone.code == 0, alone
    for way in ("text_to_image", "image_to_text"):
        assert json.loads(alone.out)[way]["exact"]["R@1"] == measured[way]["exact"]["R@1"]
        assert measured[way]["queries"] == measured[way]["candidates"] == 3
    synced = cli("sync", "--index", index)
    assert synced.code == 0 and "3 unchanged" in synced.err and "0 embedded" in synced.err
    shutil.rmtree(data)
    refused(cli("sync", "--index", index), 1, "is not there: its 3 images stay", "brivl-search sources move")


def test_a_named_file(cli: Cli, tmp_path: Path, tiny_checkpoint: Path) -> None:
    datasets.coco(tmp_path / "coco")
    file = "coco/annotations/captions_val2014.json"
    built = cli("build-index", file, "--index", "i", "--encoder", str(tiny_checkpoint))
    assert built.code == 0 and "3 images found: 3 embedded" in built.err and "6 captions: 6 embedded" in built.err
    shutil.rmtree(tmp_path / "coco" / "val2014")
    refused(cli("sync", "--index", "i"), 1, "none of the 3 images it names can be read", "--images names")


def test_refusals(cli: Cli, tmp_path: Path, tiny_checkpoint: Path) -> None:
    options = ("--index", str(tmp_path / "i"), "--encoder", str(tiny_checkpoint))
    data = datasets.chinese_clip(tmp_path / "data")
    refused(cli("build-index", str(data), *options), 1, "no images", "--dataset-format chinese-clip reads it")
    split = ("--dataset-format", "chinese-clip", "--split", "test")
    refused(cli("build-index", str(data), *split, *options), 2, "--split test", "has the splits train, valid")
    refused(cli("build-index", str(data), "--dataset-format", "clip", *options), 2, "--dataset-format clip: use one of")
    refused(cli("build-index", str(data / "train_texts.tr.jsonl"), *options), 2, "is no dataset of a known layout")
    refused(cli("add", "photos", "--images", "photos", *options), 2, "--images is for datasets")
    assert not (tmp_path / "i").exists()
