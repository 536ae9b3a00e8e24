"""What was measured is kept for this machine, and `auto` and new indexes follow it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.runtimes import make, measured, order
from brivl_search.encoders.runtimes.choice import Choice
from brivl_search.encoders.runtimes.measured import Measured
from tests.support.pictures import write_corpus
from tests.support.site import Ended
from tests.support.tiny_hf import make_hf

pytestmark = pytest.mark.filterwarnings("ignore::brivl_search.errors.TowerWarning")

TORCH = Measured("torch", "fp32", 10, 1.0, True, 80.0, 0.0)
BF16 = Measured("openvino", "bf16", 25, 0.9995, True, 79.9, 0.1)
INT8 = Measured("onnx", "int8", 30, 0.98, False, 79.6, 0.4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("BRIVL_SEARCH_EXPORTS", str(tmp_path / "exports"))
    monkeypatch.setattr(order, "in_own_process", make.make)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_auto_takes_the_fastest_that_keeps_the_vectors_and_a_new_index_the_fastest_that_keeps_recall() -> None:
    assert measured.best("f") is None and measured.best_for_new("f") is None
    measured.save("f", [TORCH, BF16, INT8])
    assert measured.best("f") == Choice("openvino", "bf16")
    assert measured.best("f", "fp32") == Choice("torch", "fp32")
    assert measured.best("f", "int8") == Choice("onnx", "int8")
    assert measured.best_for_new("f") == INT8
    assert "OpenVINO, bf16 (measured here: 25 images/s, 0.1 points" in measured.describe("f")
    assert "not measured here" in measured.describe("g")


@pytest.mark.parametrize(
    ("way", "safe"),
    [
        (Measured("onnx", "int8", 30, 0.98, False, 79.5, 0.5), True),
        (Measured("onnx", "int8", 30, 0.98, False, 79.4, 0.6), False),
        (Measured("onnx", "int8", 30, 0.98, False), False),  # nobody knows what it costs
        (Measured("openvino", "bf16", 30, 0.9995, True), True),
    ],
)
def test_speed_may_cost_half_a_point_of_recall_and_must_be_measured(way: Measured, safe: bool) -> None:
    measured.save("f", [TORCH, way])
    assert (measured.best_for_new("f") == way) is safe


def test_what_another_cpu_gave_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    path = measured.save("f", [TORCH, BF16])
    monkeypatch.setattr(measured, "cpu_name", lambda: "another")
    assert measured.best("f") is None
    path.write_text('{"cpu": ')
    assert measured.read("f") == []


@pytest.fixture
def clip(tmp_path: Path) -> str:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    write_corpus(tmp_path / "photos", n=6)
    return f"hf:{make_hf(tmp_path / 'clip', 'clip')}"


def build(run_here: Callable[..., Ended], *arguments: str) -> Ended:
    return run_here("build-index", "photos", "-i", "ix", "--captions", "en", "--workers", "0", *arguments)


def encoder_of(run_here: Callable[..., Ended]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run_here("info", "-i", "ix", "--format", "json").out)
    return facts


def test_a_new_index_gets_int8_where_it_was_measured_to_lose_nothing(run_here: Callable[..., Ended], clip: str) -> None:
    plain = load_encoder(clip, runtime="torch")
    measured.save(plain.fingerprint, [TORCH, INT8])
    assert build(run_here, "--encoder", clip).code == 0
    assert encoder_of(run_here)["encoder"]["name"] == f"{plain.name}+precision=int8"
    for again in ((), ("--encoder", clip)):  # its encoder stays, however it is called
        done = build(run_here, *again)
        assert done.code == 0, done.err
    found = run_here("query", "a red circle", "-i", "ix", "-k", "1")
    assert found.code == 0 and json.loads(found.out)["path"]


def test_an_index_keeps_its_encoder_whatever_is_measured_later(run_here: Callable[..., Ended], clip: str) -> None:
    plain = load_encoder(clip, runtime="torch")
    assert build(run_here, "--encoder", clip, "--runtime", "onnx").code == 0
    measured.save(plain.fingerprint, [TORCH, INT8])
    write_corpus(Path("photos"), n=8)
    for verb in (("sync", "-i", "ix"), ("build-index", "photos", "-i", "ix", "--encoder", clip)):
        done = run_here(*verb)
        assert done.code == 0, done.err
    assert encoder_of(run_here)["encoder"] == {"name": plain.name, "fingerprint": plain.fingerprint, "dim": plain.dim}
    refused = build(run_here, "--encoder", clip, "--precision", "int8")
    assert refused.code == 3 and "+precision=int8" in refused.err and "leave out --precision" in refused.err
    asked = run_here("query", "dog", "-i", "ix", "--precision", "int8")
    assert asked.code == 3 and "leave out --precision int8" in asked.err


def test_models_runtimes_measures_and_keeps(
    run_here: Callable[..., Ended], clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brivl_search.evaluation import runtimes

    ways = [Choice("torch", "fp32"), Choice("onnx", "fp32"), Choice("onnx", "int8")]
    monkeypatch.setattr(runtimes, "ways", lambda: ways)
    done = run_here("models", "runtimes", clip, "--dataset", "photos", "--captions", "en", "--format", "json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [(way["runtime"], way["precision"]) for way in said["ways"]] == [(w.runtime, w.precision) for w in ways]
    torch, onnx, int8 = said["ways"]
    assert torch["lost"] == 0 and abs(onnx["lost"]) < 0.1 and onnx["same"] and not int8["same"]
    assert all(way["rate"] > 0 for way in said["ways"]) and said["best"] in [str(one) for one in ways]
    kept = measured.read(load_encoder(clip, runtime="torch").fingerprint)
    assert [one.choice for one in kept] == ways
    table = run_here("models", "runtimes", clip, "--format", "table")
    assert table.code == 0 and "ONNX Runtime, int8" in table.out and "without --dataset" in table.err


def test_towers_that_take_patches_are_measured_with_patches(
    run_here: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brivl_search.evaluation import runtimes, speed_worker

    name = f"hf:{make_hf(tmp_path / 'naflex', 'siglip2')}"
    monkeypatch.setattr(runtimes, "ways", lambda: [Choice("torch", "fp32"), Choice("onnx", "fp32")])
    done = run_here("models", "runtimes", name, "--format", "json")
    assert done.code == 0 and [way["runtime"] for way in json.loads(done.out)["ways"]] == ["torch", "onnx"]
    options = {"device": "cpu", "precision": "fp32"}
    asked = {"name": name, "options": options, "pictures": [], "seconds": 0.01, "began": 0.0}
    assert speed_worker.measure(asked)["images"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runtime", "tensorrt"), ["--runtime", "auto", "openvino"]),
        (("--precision", "fp16"), ["--precision", "int8"]),
        (("--runtime", "onnx", "--precision", "bf16"), ["ONNX Runtime has no bf16", "--runtime openvino"]),
        (("--runtime", "torch", "--precision", "int8"), ["--runtime onnx"]),
    ],
)
def test_mistakes_are_told_in_a_line(
    run_here: Callable[..., Ended], arguments: tuple[str, ...], words: list[str]
) -> None:
    done = run_here("embed", "--text", "a dog", *arguments)
    assert done.code == 2 and all(word in done.err for word in words) and done.err.count("\n") == 1


def test_a_missing_runtime_is_told_in_a_line(run_here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.encoders.runtimes import choice

    monkeypatch.setattr(choice, "installed", lambda runtime: False)
    done = run_here("embed", "--text", "a dog", "--runtime", "openvino")
    assert done.code == 1 and "needs OpenVINO: pip install" in done.err and done.err.count("\n") == 1


def test_brivl_minis_fingerprint_is_that_of_its_files() -> None:
    from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint
    from brivl_search.encoders.registry import BUNDLED

    own = FolderCheckpoint(BUNDLED / "brivl-mini").fingerprint
    for runtime in ("auto", "torch"):
        encoder = load_encoder(runtime=runtime)  # type: ignore[arg-type]
        assert (encoder.name, encoder.fingerprint) == ("brivl-mini", own)
