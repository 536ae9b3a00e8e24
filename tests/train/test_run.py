"""How a run starts, is stopped, and ends: the start is scored, signals save first, NaN leads back to a good state."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from brivl_search.errors import UsageError
from tests.support.folders import REPO
from tests.support.warm import Warm
from tests.train.test_pretrain import log_of, photos, write_recipe  # noqa: F401 - a fixture
from train import pretrain
from train.run import loop, state

SHORT = {"steps": 12, "batch": 12, "captions_per_image": 1, "queue_size": 12, "warmup": 2}


def settings_of(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "config.json").read_text())["training"]


def test_training_that_harms_leaves_the_start_and_says_so(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = iter([50.0, 40.0, 50.0, 30.0])

    def measured(*_: object, **__: object) -> dict[str, dict[str, float]]:
        value = next(figures)
        return {"zh": {f"{way}@{k}": value for way in ("t2i", "i2t") for k in (1, 5, 10)}}

    monkeypatch.setattr("train.run.validate.Validation.measure", measured)
    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 4})
    pretrain.main([str(recipe)])
    said = capsys.readouterr().out
    assert "start: zh: R@10 50.0" in said
    assert "start: of 9 held-out photos R@10 is always 100" in said
    assert "no step scored better than the start (50.0; 30.0 at step 12)" in said
    assert settings_of(tmp_path / "run" / "checkpoint")["step"] == 0
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["step"] == 0 and first["recall"]["zh"]["t2i@10"] == 50.0
    pretrain.main([str(recipe), "--export", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "this is what the run started from" in said and f"models calibrate {tmp_path / 'out'}" in said


def test_where_r_at_10_is_full_finer_ranks_decide() -> None:
    from train.run.validate import Validation

    judge = Validation.__new__(Validation)
    judge.name = "zh"

    def recall(one: float, ten: float) -> dict[str, dict[str, float]]:
        return {"zh": {f"{way}@{k}": one if k == 1 else ten for way in ("t2i", "i2t") for k in (1, 5, 10)}}

    assert judge.score(recall(60, 100)) > judge.score(recall(50, 100)) > judge.score(recall(99, 99))


def test_plain_lines_where_there_is_no_terminal(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 6, "save_every": 5})
    pretrain.main([str(recipe), "--stop-after", "10"])
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said
    for line in ("looking at every photo: 189 of 189", "start: zh: R@10", "step 6: R@10", "zh: R@10"):
        assert line in said, line
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 10
    assert torch.load(tmp_path / "run" / "previous.pt", weights_only=True)["step"] == 6
    pretrain.main([str(recipe), "--set", f'run="{tmp_path / "whole"}"'])
    pretrain.main([str(recipe)])
    assert "goes on from step 10 of 12" in capsys.readouterr().out
    whole = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()][1:]
    parts = log_of(recipe)
    assert [line["step"] for line in parts] == [6, 10, 12] and [line["step"] for line in whole] == [6, 12]
    mean = (4 * parts[1]["loss"] + 2 * parts[2]["loss"]) / 6  # of the same six steps
    assert mean == pytest.approx(whole[1]["loss"], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first_and_the_curve_goes_on(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, steps = loop.train_step, []

    def step(*arguments: object) -> float:
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), number)
        return real(*arguments)  # type: ignore[arg-type]

    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 12})
    before = signal.getsignal(number)
    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(SystemExit) as ended:
        pretrain.main([str(recipe)])
    assert ended.value.code == 128 + number and signal.getsignal(number) is before
    assert "at step 5, saved; the same command goes on" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 5
    monkeypatch.setattr(loop, "train_step", real)
    pretrain.main([str(recipe)])
    pretrain.main([str(recipe), "--set", f'run="{tmp_path / "whole"}"'])
    whole = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    assert log_of(recipe)[-1]["loss"] == pytest.approx(whole["loss"], rel=1e-4)  # with the losses before the signal


@pytest.mark.slow
def test_sigterm_to_a_process_with_workers(tmp_path: Path, photos: Path) -> None:  # noqa: F811
    recipe = write_recipe(tmp_path, photos, **SHORT | {"steps": 100_000, "eval_every": 100_000, "workers": 2})
    log = tmp_path / "run" / "log.jsonl"
    with Warm("train.pretrain", [str(recipe)], cwd=REPO, env=os.environ) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.running() and not (log.is_file() and '"loss"' in log.read_text()):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the workers get it too
        ended = process.wait(120)
    assert ended.returncode == 143, ended.stderr
    assert b"stopped by SIGTERM" in ended.stdout and b"Traceback" not in ended.stderr
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] >= 20


def broken_after(monkeypatch: pytest.MonkeyPatch, step: int, *, lr: float) -> None:
    """With a rate above `lr`, the loss of every step beyond `step` is NaN."""
    real = loop.train_step

    def train_step(model, optimizer, batch, session):  # type: ignore[no-untyped-def]
        done = max((int(s["step"]) for s in optimizer.state.values()), default=0)
        if session.recipe.train.lr > lr and done >= step:
            return float("nan")
        return real(model, optimizer, batch, session)

    monkeypatch.setattr(loop, "train_step", train_step)


def test_after_nan_a_lower_rate_goes_on_from_the_last_good_state(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 4})
    broken_after(monkeypatch, 10, lr=5e-4)
    with pytest.raises(SystemExit) as ended:
        pretrain.main([str(recipe)])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.count("\n") == 1
    assert "the loss or a gradient is nan at step 11: lower train.lr" in error and "it goes on from step 8" in error
    with pytest.raises(SystemExit) as ended:  # nothing was changed
        pretrain.main([str(recipe)])
    assert ended.value.code == 2 and "stopped at step 11 because its loss was not finite" in capsys.readouterr().err
    pretrain.main([str(recipe), "--set", "train.lr=1e-4"])
    assert "goes on from step 8 of 12" in capsys.readouterr().out
    assert [line["step"] for line in log_of(recipe)][-1] == 12
    assert not (tmp_path / "run" / state.DIVERGED).exists()


def test_a_state_that_leads_to_nan_again_gives_way_to_the_one_before(tmp_path: Path) -> None:
    def save(step: int) -> None:
        model, optimizer = torch.nn.Linear(2, 2), None
        optimizer = torch.optim.AdamW(model.parameters())
        state.save_state(tmp_path / state.LAST, model, optimizer, step, 0.0, keep_previous=True)

    def step_of() -> int:
        return int(torch.load(tmp_path / state.LAST, weights_only=True)["step"])

    save(10), save(20)
    assert state.diverged(tmp_path, 29, {"lr": 1.0}, since=8) == "it goes on from step 20"
    with pytest.raises(Exception, match=r"lower train.lr"):
        state.check_diverged(tmp_path, {"lr": 1.0})
    state.check_diverged(tmp_path, {"lr": 0.5})
    assert state.diverged(tmp_path, 25, {"lr": 0.5}, since=4) == "it goes on from step 10" and step_of() == 10
    state.check_diverged(tmp_path, {"lr": 0.1})
    assert state.diverged(tmp_path, 25, {"lr": 0.1}, since=9) == "it begins anew"
    assert not (tmp_path / state.LAST).exists()
    save(10), save(20)  # right after a state nothing was finite: that state itself is bad
    (tmp_path / state.DIVERGED).unlink()
    assert state.diverged(tmp_path, 21, {"lr": 1.0}, since=0) == "it goes on from step 10"
    state.past_divergence(tmp_path, 15)
    assert (tmp_path / state.DIVERGED).exists()
    state.past_divergence(tmp_path, 22)
    assert not (tmp_path / state.DIVERGED).exists()


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = loop.train_step

    def spoil(model, optimizer, batch, session):  # type: ignore[no-untyped-def]
        loss = real(model, optimizer, batch, session)
        if session.recipe.train.lr > 5e-4:
            with torch.no_grad():
                next(model.online.parameters()).fill_(float("inf"))
        return 1.0 if loss != loss else loss

    monkeypatch.setattr(loop, "train_step", spoil)
    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 1})
    with pytest.raises(SystemExit, match=r"^1$"):
        pretrain.main([str(recipe)])
    assert "a weight is NaN or infinite at step 1" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()
    pretrain.main([str(recipe), "--set", "train.lr=1e-4", "--set", "train.eval_every=12"])
    assert log_of(recipe)[-1]["step"] == 12


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    from types import SimpleNamespace

    weight = torch.nn.Parameter(torch.ones(2))
    model = SimpleNamespace(losses=lambda *_: iter([(weight * torch.tensor([1.0, float("inf")])).sqrt().sum() * 0 + 1]))
    cfg = SimpleNamespace(accumulate=1, clip_grad=1.0)
    session = SimpleNamespace(recipe=SimpleNamespace(train=cfg), device=torch.device("cpu"), bf16=False)
    batch = dict.fromkeys(("images", "token_ids", "token_mask", "ids"))
    loss = loop.train_step(model, torch.optim.AdamW([weight], lr=1.0), batch, session)  # type: ignore[arg-type]
    assert not torch.isfinite(torch.tensor(loss)) and weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("loss", ["moco", "clip", "siglip"])
def test_every_loss_trains_with_a_learned_temperature(tmp_path: Path, photos: Path, loss: str) -> None:  # noqa: F811
    recipe = write_recipe(tmp_path, photos, **SHORT | {"eval_every": 12, "loss": loss, "learned_temperature": True})
    pretrain.main([str(recipe)])
    kept = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    assert kept["log_temperature"] != torch.tensor(0.07).log()
    assert (loss != "siglip") or kept["bias"] != -10.0


def test_photos_are_named_on_the_command_line(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pretrain.own_photos(photos) == [f'data.0.folder="{photos}"', 'data.0.file="captions.jsonl"']
    assert pretrain.own_photos(photos / "captions.jsonl") == pretrain.own_photos(photos)
    recipe = write_recipe(tmp_path, photos)
    for given in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SystemExit, match=r"^2$"):
            pretrain.main([str(recipe), "--photos", str(given)])
        assert "give a folder with captions.jsonl" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_run_is_named(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tmp_path, photos, **SHORT)
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        pretrain.main([str(recipe)])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and str(tmp_path / "run") in said and said.count("\n") == 1


def test_a_state_that_finds_the_disk_full_is_no_traceback_and_leaves_nothing_half(
    tmp_path: Path,
    photos: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(_: object, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    monkeypatch.setattr("train.run.state.torch.save", full)
    recipe = write_recipe(tmp_path, photos, **SHORT | {"steps": 1, "eval_every": 1})
    with pytest.raises(SystemExit) as ended:
        pretrain.main([str(recipe)])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "free some space" in said and said.count("\n") == 1
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.suffix in (".pt", ".tmp")]


def test_an_export_leaves_nothing_of_what_was_there_before(tmp_path: Path) -> None:
    kept, target = tmp_path / "kept", tmp_path / "target"
    for folder, names in ((kept, ["model.safetensors", "config.json"]), (target, ["hubs.safetensors", "README.md"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    (kept / ".model.safetensors.7.tmp").write_text("half")  # of a save that was killed
    pretrain.ship(list(kept.iterdir()), target)
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    pretrain.ship(list(kept.iterdir()), kept)  # onto itself: it is there
    assert (kept / "config.json").read_text() == "config.json"
    (target / "pytorch_model.bin").write_text("another")
    with pytest.raises(UsageError, match=r"it holds another model \(pytorch_model.bin\): give a new folder"):
        pretrain.ship(list(kept.iterdir()), target)
