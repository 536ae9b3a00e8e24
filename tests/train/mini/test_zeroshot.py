"""Zero-shot figures, and that training leaves out the photos they are measured on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import REPO
from tests.support.pictures import COLOURS, SHAPES, draw
from tests.support.stub import StubEncoder
from train.data.photos import read_folder
from train.mini import zeroshot
from train.recipe import Data, read_recipe

THINGS = [(colour, shape) for colour in ("red", "blue", "green") for shape in ("circle", "square")]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Six classes; the photos of the third and the last show what their names say, the rest is all one picture."""
    rows = []
    for i, (colour, shape) in enumerate(THINGS):
        draw(*((colour, shape) if i % 3 == 2 else ("black", "ring"))).save(tmp_path / f"{i}.png")
        names = {"zh": COLOURS[colour][0] + SHAPES[shape], "en": f"{colour} {shape}"}
        rows.append({"image": f"{i}.png", "class": i, **names})
    (tmp_path / "labels.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return tmp_path / "labels.jsonl"


def test_training_leaves_out_what_zeroshot_takes(labels: Path, tmp_path: Path) -> None:
    spec: dict[str, Any] = {"folder": ".", "file": "labels.jsonl", "captions": {"en": 1}}
    recipe = read_recipe(REPO / "train" / "recipes" / "brivl-mini.toml", ["data.2.skip_every=3"])
    assert [(data.file, data.skip_every) for data in recipe.data] == [
        ("captions.jsonl", 0),
        ("captions.jsonl", 0),
        ("labels.jsonl", 3),
    ]
    photos = read_folder(Data(**spec, skip_every=3), tmp_path)
    assert [Path(photo.path).name for photo in photos.train] == ["0.png", "1.png", "3.png", "4.png"] and not photos.val
    held = read_folder(Data(**spec, skip_every=3, hold_out_last=3), tmp_path)
    assert [Path(photo.path).name for photo in held.train] == ["0.png", "1.png"] and len(held.val) == 3


def test_figures_are_of_those_photos_among_all_names(labels: Path) -> None:
    results = zeroshot.zeroshot(StubEncoder(), labels, 3)
    assert [(r["names"], r["as"]) for r in results] == [(n, a) for n in ("zh", "en") for a in ("name", "templates")]
    for result in results:
        assert (result["photos"], result["classes"], result["top1"], result["top5"]) == (2, 6, 100.0, 100.0)
    everything = zeroshot.zeroshot(StubEncoder(), labels)[0]
    assert everything["photos"] == 6 and everything["top1"] in (33.3, 50.0)  # a ring is nearest to one of the names


def test_the_command_with_a_checkpoint(
    labels: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zeroshot", str(tiny_checkpoint), str(labels), "--skip-every", "2"])
    zeroshot.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 and all(line["photos"] == 3 and 0 <= line["top1"] <= line["top5"] for line in lines)
