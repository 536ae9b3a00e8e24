"""How fast encoders are: a process for each, beside a reference, and what cannot be had is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import load_encoder, speeds
from brivl_search.encoders.cpu import cpu_name
from brivl_search.encoders.inventory import inventory
from brivl_search.encoders.known import KNOWN
from brivl_search.encoders.recommended import RECOMMENDED, purposes_of
from brivl_search.encoders.speeds import Speed
from brivl_search.evaluation import speed, speed_worker
from brivl_search.evaluation.speed import Failed
from brivl_search.output.models import show_model, show_models
from tests.support.pictures import write_corpus
from tests.support.site import Ended, refused
from tests.support.tiny_hf import make_hf
from tests.support.warm import instead_of_run

ON_CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def made(name: str, **changes: object) -> Speed:
    machine = cpu_name()
    plain = Speed(name, "f-" + name, machine, "cpu", "fp32", 10.0, 8, 99.0, 1 << 30, None, 1.5, 0.5, "2026-11-30")
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_each_in_a_process_of_its_own(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Ended]
) -> None:
    """One run: a reference, a model of transformers, one that is nowhere, one that is damaged."""
    monkeypatch.setattr(speed, "REFERENCE", str(tiny_checkpoint))
    clip, photos = make_hf(tmp_path / "clip", "clip"), tmp_path / "photos"
    write_corpus(photos, 3, size=(48, 40))
    (photos / "0bad.jpg").write_bytes(b"\xff\xd8\xff")
    damaged = make_hf(tmp_path / "damaged", "clip")
    (damaged / "model.safetensors").write_bytes(b"?")
    names = (f"hf:{clip}", "hf:no/such", f"hf:{damaged}")
    processes = iter([speed.subprocess.run])  # the reference is measured in a process as users have it

    def run(command: list[str], **options: Any) -> Any:
        return next(processes, instead_of_run)(command, **options)

    monkeypatch.setattr(speed.subprocess, "run", run)
    how = ("--images", str(photos), "--seconds", "0.1", "--device", "cpu", "--precision", "fp32")
    line = ("models", "bench", *names, *how)
    ended = run_here(*line, "--format", "json")
    found = json.loads(ended.out)
    assert ended.code == 1 and "2 of 4 encoders could not be measured: hf:no/such, hf:" in ended.err
    assert [one["name"] for one in found] == [str(tiny_checkpoint), *names]
    assert "hf:no/such" in found[2]["error"] and "error" in found[3] and "Traceback" not in ended.err
    reference, other = found[:2]
    assert reference["relative"] == 1 and other["relative"] == pytest.approx(other["images"] / reference["images"])
    for one, expected in ((reference, load_encoder(str(tiny_checkpoint))), (other, load_encoder(f"hf:{clip}"))):
        assert one["fingerprint"] == expected.fingerprint and (one["device"], one["precision"]) == ("cpu", "fp32")
        assert one["images"] > 0 and one["texts"] > 0 and 1 <= one["batch"] <= 64 and one["gpu_memory"] is None
        assert one["text_ready"] > 0 and one["image_ready"] > 0 and one["machine"] == cpu_name()
        assert 50 << 20 < one["memory"] < 3 << 30
    kept = speeds.read()
    assert [one.name for one in kept] == [str(tiny_checkpoint), f"hf:{clip}"]
    listed = {entry.name: entry for entry in inventory([clip, tiny_checkpoint])}
    assert listed[f"hf:{clip}"].relative == pytest.approx(other["relative"])
    table = run_here("models", "bench", f"hf:{clip}", *how, "--format", "table")
    assert table.code == 0 and "× brivl-mini" in table.out and "kept: brivl-search models list" in table.err
    assert len(speeds.read()) == 2  # measured again, not more


def test_a_folder_without_a_picture_and_seconds_that_are_none(tmp_path: Path, run_here: Callable[..., Ended]) -> None:
    (tmp_path / "empty").mkdir()
    refused(run_here("models", "bench", "brivl-mini", "--images", str(tmp_path / "empty")), 1, "no images")
    refused(run_here("models", "bench", "brivl-mini", "--images", str(tmp_path / "none")), 2, "no such file or folder")
    refused(run_here("models", "bench", "brivl-mini", "--seconds", "0"), 2, "--seconds 0", "above 0")


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"import os; os.kill(os.getpid(), 9)": "signal 9 (killed", "raise SystemExit('no room')": "no room"}
    for code, words in ways.items():
        real = speed.subprocess.run
        instead = lambda line, real=real, code=code, **k: real([line[0], "-c", code], **k)  # noqa: E731
        monkeypatch.setattr(speed.subprocess, "run", instead)
        found = speed.measure("brivl-mini", ON_CPU)
        assert isinstance(found, Failed) and words in found.why
        monkeypatch.undo()


def test_options_reach_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument of `load_encoder` that is not known here yet passes through, and tells measurements apart."""
    seen: dict[str, object] = {}

    class Fast:
        fingerprint = "fast"

        class pixels:
            size, resize = 9, "squash"

        def encode_texts(self, texts: list[str]) -> None:
            assert all(isinstance(text, str) for text in texts)

        def encode_images(self, pixels: np.ndarray) -> None:
            assert pixels.dtype == np.uint8 and pixels.shape[1:] == (9, 9, 3)

    def load(name: str, **options: object) -> Fast:
        seen.update(options, name=name)
        return Fast()

    monkeypatch.setattr("brivl_search.encoders.load_encoder", load)
    asked = {"name": "n", "options": {**ON_CPU, "runtime": "onnx"}, "pictures": [], "seconds": 0.01, "began": 0.0}
    found = speed_worker.measure(asked)
    assert seen == {"name": "n", "device": "cpu", "precision": "fp32", "runtime": "onnx"}
    assert found["batch"] == 64 and (found["device"], found["precision"]) == ("cpu", "fp32")
    plain, other = made("a"), made("a", options={"runtime": "onnx"})
    assert plain.key != other.key and made("a", device="cuda").key != plain.key


def test_the_median_call_counts() -> None:
    naps = iter([0.2, 0.2, 0.02, 0.02, 0.3, 0.02, 0.02])
    assert 40 < speed_worker.rate(lambda at: speed_worker.time.sleep(next(naps, 0.02)), 2, 0.35) < 100


def test_what_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    assert speeds.read() == []
    speeds.keep([made("brivl-mini", relative=1.0), made("hf:BAAI/AltCLIP", relative=0.25)])
    speeds.keep([made("brivl-mini", machine="another"), made("hf:BAAI/AltCLIP", images=20.0, relative=0.5)])
    assert [(one.name, one.images) for one in speeds.read()] == [("brivl-mini", 10.0), ("hf:BAAI/AltCLIP", 20.0)]
    speeds.keep([made("hf:BAAI/AltCLIP", device="cuda")])  # without a reference: the older ratio goes on
    listed = {entry.name: entry for entry in inventory()}
    entry = listed["hf:BAAI/AltCLIP"]
    assert entry.relative == 0.5 and [one["device"] for one in entry.to_dict()["speeds"]] == ["cpu", "cuda"]
    show_model(entry)
    show_models(list(listed.values()), {"Chinese": "中文"})
    shown = capsys.readouterr().out
    assert "20 images/s (0.5 × brivl-mini), 99 texts/s on cpu, fp32, 2026-11-30" in shown
    assert "1 × brivl-mini" in shown and "not measured" in shown and "中文" in shown
    speeds.path().write_text("{")
    assert speeds.read() == [] and inventory()
    speeds.keep([made(f"m{n}") for n in range(250)])
    assert len(speeds.read()) == 200 and speeds.read()[-1].name == "m249"


def test_what_is_recommended_loads_and_says_why() -> None:
    known = {model.name: model for model in KNOWN}
    for advice in RECOMMENDED:
        model = known[advice.name]
        assert model.licence and (model.figures or model.name == "brivl-mini") and model.dim
        assert "NC" not in model.licence  # what may not be used at work is nothing to recommend first
        assert advice.purpose in purposes_of(advice.name)
    assert {advice.purpose for advice in RECOMMENDED} == {"Chinese", "Chinese and English", "a laptop", "a GPU"}
    assert purposes_of("hf:BAAI/AltCLIP") == []
