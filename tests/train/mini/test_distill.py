"""The text tower learns from sentence encoders: teachers' vectors, lessons, and a run that learns and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import load_tower, read_config
from brivl_search.encoders.brivl.text_tower import TextTower
from tests.support.tiny import tiny_model, write_vocab
from tests.train.test_pretrain import photos, to_toml  # noqa: F401 - a fixture
from train.data.photos import read_photos
from train.mini import distill, teachers
from train.recipe import TextRecipe, read_recipe


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of two thousand random weights, as a folder that transformers reads."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = write_vocab(tmp_path_factory.mktemp("teachers") / "tiny")
    torch.manual_seed(5)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=120, max_position_embeddings=100, initializer_range=0.5, **sizes)).save_pretrained(
        folder
    )
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, photos: Path, teacher: Path) -> Path:  # noqa: F811
    write_vocab(tmp_path / "vocab")
    (tmp_path / "words.txt").write_text("dog\ngrass\nred\n")
    (tmp_path / "zh.txt").write_text("狗\n草\n")
    (tmp_path / "en.txt").write_text("dog\ngrass\n")
    content = {
        "run": str(tmp_path / "run"),
        "cache": str(tmp_path / "cache"),
        "init": {"tokenizer": "vocab"},
        "model": tiny_model(),
        "parallel": {"zh": "en"},
        "teachers": [
            {"name": "a", "folder": str(teacher), "fields": ["en"]},
            {"name": "b", "folder": str(teacher), "fields": ["zh"]},
        ],
        "data": [{"folder": str(photos), "captions": {"zh": 1, "en": 1}, "hold_out_last": 9}],
        "words": [{"teacher": "a", "file": "words.txt"}],
        "dictionaries": [{"files": {"b": "zh.txt", "a": "en.txt"}, "repeat": 2}],
        "train": {
            "seed": 0, "steps": 120, "batch": 24, "lr": 3e-3, "warmup": 5, "token_dropout": 0.1, "eval_every": 60,
            "bf16": False, "device": "cpu",
        },
    }  # fmt: skip
    (tmp_path / "recipe.toml").write_text(to_toml(content), encoding="utf-8")
    return tmp_path / "recipe.toml"


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_teachers_vector_is_the_mean_over_its_tokens(teacher: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["a red dog", "grass", "一 只 狗"]
    vectors = teachers.embed_cached(teacher, texts, tmp_path)
    model, tokenizer = AutoModel.from_pretrained(teacher).eval(), AutoTokenizer.from_pretrained(teacher)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert float(F.cosine_similarity(alone, torch.from_numpy(vector), dim=0)) > 0.999
    (file,) = tmp_path.glob("*.npy")
    before = file.stat().st_mtime_ns
    np.testing.assert_array_equal(teachers.embed_cached(teacher, texts, tmp_path), vectors)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="run `python -m train"):
        teachers.embed_cached(tmp_path / "none", texts, tmp_path)


def test_vectors_are_known_by_what_the_teacher_is_not_by_its_name(teacher: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    texts = ["a red dog", "grass"]
    same, other = (shutil.copytree(teacher, tmp_path / name / "tiny") for name in ("same", "other"))
    vectors = teachers.embed_cached(teacher, texts, tmp_path / "cache")
    np.testing.assert_array_equal(teachers.embed_cached(same, texts, tmp_path / "cache"), vectors)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    weights = load_file(other / "model.safetensors")
    turned = {name: tensor.flip(-1) for name, tensor in weights.items()}
    save_file(turned, other / "model.safetensors", {"format": "pt"})
    assert np.abs(teachers.embed_cached(other, texts, tmp_path / "cache") - vectors).max() > 0.1


def test_sigterm_saves_and_the_curve_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--set", "train.steps=40", "--set", "train.eval_every=40"]
    whole = recipe.parent / "whole"
    distill.main([str(recipe), *short, "--set", f'run="{whole}"'])
    real, steps = distill.rate_at, []

    def rate_at(*arguments: int) -> float:
        steps.append(arguments[0])
        if steps.count(26) == 1 and arguments[0] == 26:  # called for each group of weights
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(distill, "rate_at", rate_at)
    with pytest.raises(SystemExit) as ended:
        distill.main([str(recipe), *short])
    said = "".join(capsys.readouterr().out.split())  # rich may break its line anywhere
    assert ended.value.code == 143 and "stoppedbySIGTERMatstep27,saved" in said
    assert torch.load(recipe.parent / "run" / "last.pt", weights_only=True)["step"] == 27
    distill.main([str(recipe), *short])
    a, b = log_of(whole), log_of(recipe.parent / "run")
    assert [line["step"] for line in b] == [20, 40]
    np.testing.assert_allclose([x["loss"] for x in b], [x["loss"] for x in a], rtol=1e-4)


def test_lessons_point_at_the_right_targets(recipe: Path, teacher: Path) -> None:
    content = read_recipe(recipe, [], TextRecipe)
    centre: dict[str, torch.Tensor] = {}
    found = read_photos(content.data, recipe.parent)
    lessons = distill.collect(found.train, content, recipe.parent, recipe.parent / "cache", centre)

    def target(name: str, text: str) -> torch.Tensor:
        vector = torch.from_numpy(teachers.embed_cached(teacher, [text], recipe.parent / "one"))[0]
        return F.normalize(vector - centre[name], dim=0)

    def told(name: str, text: str) -> torch.Tensor:
        return lessons.targets[name][lessons.rows[name][lessons.texts.index(text)]]

    assert float(told("a", "a red circle") @ target("a", "a red circle")) > 0.999
    assert lessons.rows["b"][lessons.texts.index("a red circle")] == -1  # nothing says what it is in the other language
    assert float(told("b", "红色的圆形") @ target("b", "红色的圆形")) > 0.999
    # zh has one caption and en two: no translations of each other, whatever [parallel] says
    assert lessons.rows["a"][lessons.texts.index("红色的圆形")] == -1
    assert float(told("a", "grass") @ target("a", "grass")) > 0.999  # a word
    assert float(told("a", "草") @ target("a", "grass")) > 0.999  # a dictionary's pair, both ways
    assert lessons.texts.count("草") == 2
    exam = distill.collect(found.val, content, recipe.parent, recipe.parent / "cache", centre)
    assert len(exam.texts) == 27 and "grass" not in exam.texts


def test_every_text_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 160)
    rows = np.concatenate([distill.batch_rows(step, lengths, 10, seed=4) for step in range(16)])
    assert sorted(rows.tolist()) == list(range(160))
    again = np.concatenate([distill.batch_rows(step, lengths, 10, seed=4) for step in range(16, 32)])
    assert sorted(again.tolist()) == list(range(160)) and again.tolist() != rows.tolist()
    spread = [np.ptp(lengths[distill.batch_rows(step, lengths, 10, seed=4)]) for step in range(16)]
    assert max(spread) <= 3  # texts of like length go together


def test_loss_is_zero_for_the_teachers_own_vectors_only() -> None:
    target = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert distill.distillation_loss(target, target).item() == pytest.approx(0, abs=1e-5)
    shuffled = distill.distillation_loss(target.roll(1, 0), target)
    assert shuffled > 0.5
    plain = (1 - (target.roll(1, 0) * target).sum(1)).mean()
    torch.testing.assert_close(distill.distillation_loss(target.roll(1, 0), target, relation=0), plain)


def test_it_learns_and_a_stopped_run_goes_on_the_same(recipe: Path) -> None:
    run = recipe.parent / "run"
    distill.main([str(recipe)])
    log = log_of(run)
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert set(log[-1]["nearest"]) == {"a", "b"}
    tower = TextTower(read_config(run / "checkpoint").text, 32)
    load_tower(run / "checkpoint", "text", tower)  # what `init.checkpoint` with towers = ["text"] does

    again = recipe.parent / "again"
    saved, distill_state = distill.save_state, []

    def stop(*args: Any) -> None:
        saved(*args)
        distill_state.append(args)
        raise KeyboardInterrupt

    distill.save_state = stop  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            distill.main([str(recipe), "--set", f'run="{again}"'])
    finally:
        distill.save_state = saved
    assert log_of(again)[-1]["step"] == 60
    distill.main([str(recipe), "--set", f'run="{again}"'])
    np.testing.assert_allclose([x["loss"] for x in log_of(again)], [x["loss"] for x in log], rtol=1e-4)
