"""benchmarks/one_tower.py: what it counts and multiplies, and a whole run with tiny models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from brivl_search.encoders.one_tower.config import MatcherConfig
from tests.support.folders import REPO
from tests.support.matchers import make_matcher
from tests.support.pictures import draw
from tests.support.tiny import make_checkpoint

sys.path.insert(0, str(REPO / "benchmarks"))

import one_tower


def test_both_orders_the_first_hits_and_no_others() -> None:
    cosines = np.array([[0.9, 0.8, 0.1], [0.7, 0.6, 0.5], [0.5, 0.4, 0.3]], np.float32)
    scores = np.array([[0, 9, 0], [0, 9, 0], [0, 0, 9]], np.float32)
    assert one_tower.recall(cosines) == pytest.approx(100 / 3)
    assert one_tower.recall(scores) == pytest.approx(200 / 3)
    assert one_tower.reordered(cosines, scores, 1, 0.0) == one_tower.recall(cosines)
    assert one_tower.reordered(cosines, scores, 2, 0.0) == pytest.approx(100 / 3)  # wrong, right; third is out of reach
    assert one_tower.reordered(cosines, scores, 3, 0.0) == one_tower.recall(scores)
    assert one_tower.reordered(cosines, scores, 3, 1000.0) == one_tower.recall(cosines)  # the cosine decides


def test_flops_of_a_pair_are_those_of_the_layers() -> None:
    """Two layers of width d over T words and R boxes; of the last, only [CLS] goes on."""
    d, f, size, words, boxes, pairs = 16, 32, 6, one_tower.WORDS, one_tower.BOXES, 3
    config = MatcherConfig(vocab_size=10, region_size=size, width=d, heads=2, feedforward=f, joint_layers=2)
    every = words + boxes
    whole = 4 * every * d * d + 2 * every * every * d + 2 * every * d * f
    last = 2 * every * d * d + 2 * d * d + 2 * every * d + 2 * d * f
    regions, places, head = boxes * size * d, boxes * 7 * d, d * d + d
    found = one_tower.uniter_cost(pairs, 1, config)
    # the places are the same for every picture, and are read once
    assert found["flops_a_pair"] == pytest.approx(2 * (whole + last + regions + head + places / pairs))
    assert found["pairs_per_s"] > 0


def test_costs_multiply_what_was_measured() -> None:
    towers = {"text_s": 0.01, "scan_s": {"100": 0.001}, "scan_s_per_vector": 1e-6, "flops_a_pair": 512}
    rows = {row["what"]: row for row in one_tower.costs(towers, [{"name": "m", "pairs_per_s": 50.0}], [8, 128])}
    assert rows["two towers"]["seconds"]["100"] == pytest.approx(0.011)
    assert rows["two towers"]["seconds"]["1000000"] == pytest.approx(1.01)
    assert rows["one tower over all pairs: m"]["seconds"]["1000000000"] == pytest.approx(2e7)
    assert rows["both, top 128: m"]["seconds"]["100"] == pytest.approx(0.011 + 100 / 50)  # there are no 128
    assert rows["both, top 8: m"]["seconds"]["1000000"] == pytest.approx(1.01 + 8 / 50)
    assert [one_tower.duration(value) for value in (0.0123, 1.5, 300, 2e7)] == [
        "12.3 ms",
        "1.5 s",
        "5.0 min",
        "231.5 days",
    ]


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(one_tower, "SCANNED", (100, 200))
    monkeypatch.setattr(one_tower, "uniter_cost", lambda pairs, rounds: {
        "name": "U", "sample_pairs": pairs, "pairs_per_s": 10.0, "flops_a_pair": 1.0
    })  # fmt: skip
    towers = make_checkpoint(tmp_path / "towers")
    matcher = make_matcher(tmp_path / "matcher", towers)
    lines = []
    for number, colour in enumerate(("red", "green", "blue", "red")):
        draw(colour, "cross", (64, 64), number).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "en": [f"a {colour} cross {number}"]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    threads = torch.get_num_threads()
    try:
        one_tower.main([
            "--matcher", str(matcher), "--encoder", str(towers), "--data", str(tmp_path), "--captions", "en",
            "--held-out", "3", "--queries", "2", "--among", "2,4,100", "--tops", "1,3", "--sample", "3", "--threads",
            "1", "--out", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png"),
        ])  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["candidates"] for row in result["accuracy"]] == [2, 4]  # there are no 100
    row = result["accuracy"][1]["text_to_image"]
    assert set(row["both"]) == {"1", "3"} and row["both"]["1"] == row["two_towers"]
    assert result["one_towers"][0]["flops_a_pair"] > 0 and (tmp_path / "out.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "| both, top 3: U |" in shown and "1,000,000,000 photos" in shown
    with pytest.raises(SystemExit, match="no captions 'fr'"):
        one_tower.held_out(tmp_path, "fr", 3, 4)
