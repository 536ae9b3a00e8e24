"""benchmarks/gpu.py on a CPU with tiny models: every part measures something, and a bad one spoils no other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.folders import REPO
from tests.support.pictures import write_corpus

sys.path.insert(0, str(REPO / "benchmarks"))

import gpu
import gpu_files
import gpu_parts
import gpu_training


@pytest.fixture
def job(tmp_path: Path) -> gpu_parts.Job:
    return gpu_parts.Job("cpu", True, 60.0, None, gpu.Cases(tmp_path / "part.json"))


def cases(job: gpu_parts.Job) -> dict[str, Any]:
    """As the parent reads them."""
    found: dict[str, Any] = json.loads(job.cases.out.read_text())
    assert found == json.loads(json.dumps(job.cases.found))
    return found


def test_matrix_products(job: gpu_parts.Job) -> None:
    gpu_parts.matmul(job)
    found = cases(job)
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["card"] == "none"
    case = found["bfloat16 256"]
    assert case["flops_per_second"] == pytest.approx(2 * 256**3 / (case["ms"] / 1000))


@pytest.mark.parametrize("which", ["vit-b-32", "chinese-clip-b-16", "brivl-b5", "brivl-b7"])
def test_towers(job: gpu_parts.Job, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        gpu_parts.tower(job, which)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    found = cases(job)
    flops = found["flops"]["flops_of_an_image"]
    assert flops > 1e5
    for name in ("eager", "compiled"):
        case = found[name]
        assert case["images_per_second"] > 0 and case["batch"] == 2
        assert case["flops_per_second"] == pytest.approx(flops * case["images_per_second"])


def test_the_published_shapes_are_built_at_full_size() -> None:
    """B7 counts 66 million parameters without its classifier (timm), ViT-B/32 88 million with its projection."""
    with torch.device("meta"):
        sizes = {which: gpu_parts.made_tower(which, False)[0] for which in ("vit-b-32", "chinese-clip-b-16")}
    count = {which: sum(p.numel() for p in model.parameters()) / 1e6 for which, model in sizes.items()}
    assert count["vit-b-32"] == pytest.approx(87.8, abs=0.2) and 85 < count["chinese-clip-b-16"] < 88
    assert gpu_parts.brivl_shape("brivl-paper", False).image.backbones[0].name.startswith("tf_efficientnet_b7")
    assert gpu_parts.brivl_shape("brivl-2.0", False).image.pixels.size == 456
    with pytest.raises(ValueError, match="no tower x"):
        gpu_parts.made_tower("x", True)


def test_what_cannot_be_compiled_keeps_the_rest(job: gpu_parts.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any, **options: Any) -> Any:
        def call(batch: Any) -> Any:
            raise RuntimeError("no compiler\nat all")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    gpu_parts.tower(job, "vit-b-32")
    torch.backends.mha.set_fastpath_enabled(True)
    found = cases(job)
    assert found["eager"]["images_per_second"] > 0 and found["compiled"] == {"failed": "RuntimeError: no compiler"}


def test_files(job: gpu_parts.Job, tmp_path: Path) -> None:
    gpu_files.decoding(job)
    found = cases(job)
    assert found["CPU workers"]["images_per_second"] > 0 and found["nvJPEG"] == {"skipped": "it needs a CUDA device"}
    assert found["photos"]["files"] == 8
    write_corpus(tmp_path / "own", 3)
    given = gpu_parts.Job("cpu", True, 60.0, tmp_path / "own", job.cases)
    with gpu_files.photos(given) as paths:
        assert len(paths) == 3 and gpu_files.many(paths, 7) == [*paths, *paths, paths[0]]
    (tmp_path / "none").mkdir()
    nothing = gpu_parts.Job("cpu", True, 60.0, tmp_path / "none", job.cases)
    with pytest.raises(ValueError, match="no JPEG"), gpu_files.photos(nothing):
        pass


def test_training_learns_and_the_group_of_one_is_right(job: gpu_parts.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_training.training(job)
    found = cases(job)
    for name in ("plain", "gradient checkpointing"):
        case = found[name]
        assert case["pairs_per_second"] > 0 and case["batch"] == 4
        assert case["first_loss"] == 0 < case["last_loss"] < 50  # the queue is empty at first: no negatives
    ways = [gpu_training.trainer(job, gpu_training.recipe_of(job), 4, checkpointing=way) for way in (False, True)]
    plain, checkpointed = ([one.step() for _ in range(3)] for one in ways)
    assert plain[1] > 0 and checkpointed == pytest.approx(plain, rel=0.05)  # computed again, not otherwise
    flops = found["flops"]
    assert flops["together"] > flops["recomputed"] > 0
    rate = found["gradient checkpointing"]["flops_per_second"] / found["gradient checkpointing"]["pairs_per_second"]
    assert rate == pytest.approx(sum(flops.values()))
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # and put back afterwards
    gpu_training.one_rank(job)
    found = cases(job)
    assert found["group"] == {"backend": "gloo", "rank": 0, "processes": 1}
    assert found["all_reduce"]["right"] and found["gather with gradient"]["right"]
    assert found["training step"]["pairs_per_second"] > 0
    assert not torch.distributed.is_initialized()


FAKE = """
import argparse, json, os, sys, time
parser = argparse.ArgumentParser()
for name in ("part", "out", "device", "seconds", "images"):
    parser.add_argument("--" + name)
parser.add_argument("--small", action="store_true")
args = parser.parse_args()
case = {"matmul": {"n": {"flops_per_second": 100.0}}, "tower vit-b-32": {"eager": {"flops_per_second": 25.0}}}
open(args.out, "w").write(json.dumps(case.get(args.part, {"first": {"ms": 1}})))
if args.part == "decoding":
    time.sleep(60)
if args.part == "training":
    print("Traceback ...", file=sys.stderr)
    print("RuntimeError: CUDA error: an illegal memory access", file=sys.stderr)
    sys.exit(1)
"""


def test_a_part_that_fails_or_takes_too_long_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(gpu, "SCRIPT", script)
    monkeypatch.setattr(gpu, "START", 0.5)
    parts = [gpu.Part(part.name, 2 if part.name == "decoding" else 60) for part in gpu.PARTS]
    monkeypatch.setattr(gpu, "PARTS", tuple(parts))
    saved = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--small", "--save", str(saved)])
    found = json.loads(capsys.readouterr().out)
    assert json.loads(saved.read_text()) == found and found["measurement"] is False
    states = {name: part["state"] for name, part in found["parts"].items()}
    assert states.pop("decoding") == "out of time" and states.pop("training") == "failed"
    assert set(states.values()) == {"done"} and len(states) == len(gpu.PARTS) - 2
    assert found["parts"]["decoding"]["cases"] == {"first": {"ms": 1}}
    assert found["parts"]["training"]["why"] == "RuntimeError: CUDA error: an illegal memory access"
    assert found["parts"]["tower vit-b-32"]["cases"]["eager"]["of_matmul"] == 0.25
    gpu.main(["--device", "cpu", "--small", "--minutes", "0", "--only", "matmul", "--only", "nccl"])
    late = json.loads(capsys.readouterr().out)["parts"]
    assert {part["state"] for part in late.values()} == {"skipped"} and list(late) == ["matmul", "nccl"]
    assert "0 s of --minutes 0 were left" in late["matmul"]["why"]


def test_all_parts_together_take_less_than_ten_minutes() -> None:
    assert sum(part.seconds for part in gpu.PARTS) <= 60 * gpu.MINUTES <= 580
