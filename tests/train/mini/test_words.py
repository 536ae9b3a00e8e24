"""The text tower learns a dictionary again: what is kept out, the losses, and a run that keeps its captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders import load_encoder
from tests.support.pictures import COLOURS, SHAPES, draw
from tests.train.mini.test_distill import teacher  # noqa: F401 - a fixture
from tests.train.test_pretrain import to_toml
from train.mini import words
from train.recipe import WordsRecipe, read_recipe

ZH = [colour for colour, _ in COLOURS.values()] + [*SHAPES.values()]
EN = [*COLOURS, *SHAPES]


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path, teacher: Path) -> Path:  # noqa: F811
    (tmp_path / "told").mkdir()
    rows = []
    for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
        draw(colour, shape, (32, 32), number).save(tmp_path / "told" / f"{number}.png")
        zh = f"一个{COLOURS[colour][0]}{SHAPES[shape]}"
        rows.append({"image": f"{number}.png", "zh": [zh], "en": [f"a {colour} {shape}"]})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "told" / "captions.jsonl").write_text(lines, encoding="utf-8")
    entries = [(a + b, f"{c} {d}") for a, c in zip(ZH, EN, strict=True) for b, d in zip(ZH, EN, strict=True)]
    entries.insert(50, ("狗", "dog"))
    entries += [("长", "a word whose explanation is much longer than a translation is")]
    for name, side in (("zh.txt", 0), ("en.txt", 1)):
        (tmp_path / name).write_text("".join(entry[side] + "\n" for entry in entries), encoding="utf-8")
    content = {
        "run": str(tmp_path / "run"),
        "init": {"checkpoint": str(tiny_checkpoint)},
        "teachers": [{"name": name, "folder": str(teacher)} for name in ("zh", "en")],
        "data": [{"folder": "told", "captions": {"zh": 1, "en": 1}, "hold_out_last": 4}],
        "dictionaries": [{"files": {"zh": "zh.txt", "en": "en.txt"}}],
        "train": {
            "steps": 40, "batch": 16, "captions": 16, "lr": 2e-3, "warmup": 5, "eval_every": 20, "average": 0.5,
            "bf16": False, "device": "cpu",
        },
    }  # fmt: skip
    (tmp_path / "recipe.toml").write_text(to_toml(content), encoding="utf-8")
    return tmp_path / "recipe.toml"


def test_kept_entries_and_long_ones_are_not_learnt(recipe: Path, tmp_path: Path) -> None:
    taught, kept = words.read_dictionary(read_recipe(recipe, [], WordsRecipe), tmp_path, tmp_path)
    assert len(kept.zh) == 3 and "狗" in kept.zh  # every fiftieth of 122
    assert not set(kept.zh) & set(taught.zh) and not set(kept.en) & set(taught.en)
    assert "长" not in taught.zh and len(taught.zh) == len(taught.en) > 60
    norms = torch.cat([taught.zh_taught, kept.en_taught]).norm(dim=1)
    assert torch.allclose(norms, torch.ones(len(norms)), atol=1e-5)


def test_relations_are_learnt_when_both_see_the_same_likenesses() -> None:
    vectors = F.normalize(torch.randn(12, 8, generator=torch.manual_seed(0)), dim=1)
    turned = vectors @ torch.linalg.qr(torch.randn(8, 8, generator=torch.manual_seed(1))).Q
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    assert float(words.relation_loss(turned, centred, 0.1)) == pytest.approx(0, abs=1e-5)  # any rotation is as good
    assert float(words.relation_loss(turned.flip(0), centred, 0.1)) > 0.1


def test_a_second_translation_is_no_wrong_answer() -> None:
    same = words.same_words(["狗", "狗", "猫"], ["dog", "hound", "cat"])
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    zh = torch.eye(3)
    en = F.normalize(torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1]]), dim=1)
    scores = np.array(zh @ en.T) / 0.1
    scores[0, 1] = scores[1, 0] = -np.inf
    rows = [np.log(np.exp(s).sum(1)) - np.diag(s) for s in (scores, scores.T)]
    expected = float(np.mean(rows))
    assert float(words.translation_loss(zh, en, same, 0.1)) == pytest.approx(expected, rel=1e-4)


def test_words_are_learnt_and_captions_stay(recipe: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    words.main([str(recipe)])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["captions"] == 1.0 and [line["step"] for line in lines] == [0, 20, 40]
    assert lines[2]["translations"] < lines[1]["translations"]
    old, new = load_encoder(str(tiny_checkpoint)), load_encoder(str(tmp_path / "run" / "checkpoint"))
    captions = ["一个红色圆形", "a red circle"]
    kept = (old.encode_texts(captions) * new.encode_texts(captions)).sum(1)
    free = tmp_path / "free"
    words.main([str(recipe), "--set", "train.keep_weight=0.0", "--set", f'run="{free}"'])
    loose = (old.encode_texts(captions) * load_encoder(str(free / "checkpoint")).encode_texts(captions)).sum(1)
    assert kept.min() > loose.max() and kept.min() > 0.9
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert np.allclose(old.encode_images(pixels), new.encode_images(pixels), atol=2e-3)  # the image tower stays
