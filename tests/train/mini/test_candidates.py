"""Held-out photos among further candidates: without any it is `eval`, with some no figure rises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.encoders import load_encoder
from brivl_search.evaluation import evaluate_dataset
from tests.support.pictures import COLOURS, SHAPES, draw
from train.mini import candidates
from train.mini.holdout import write_holdout


def test_more_candidates(tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as lines:
        for n, (colour, shape) in enumerate(kinds):
            draw(colour, shape).save(folder / f"{n}.png")
            lines.write(json.dumps({"image": f"{n}.png", "en": [f"a {colour} {shape}", f"{colour} photo"]}) + "\n")

    def figures(*more: str) -> list[float]:
        candidates.main([str(tiny_checkpoint), str(folder), "--held-out", "12", "--captions", "en", "--more", *more])
        return [float(value) for value in re.findall(r"\d+\.\d", capsys.readouterr().out)]

    write_holdout(folder, 12, tmp_path / "held")
    dataset = load_dataset(tmp_path / "held", "en")
    found = evaluate_dataset(dataset, load_encoder(str(tiny_checkpoint)), (1, 5, 10), lambda steps: None, workers=0)
    alone = [recall for way in (found.text_to_image, found.image_to_text) for recall in way["exact"].recall.values()]
    assert figures("0") == pytest.approx(alone, abs=0.06)
    among = figures("18")
    assert len(among) == 6 and all(more <= few + 0.06 for more, few in zip(among, alone, strict=True))
    assert sum(among) < sum(alone)
