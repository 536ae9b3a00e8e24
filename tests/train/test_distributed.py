"""Two processes, gradient accumulation and gradient checkpointing give what one process gives with the whole batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.nn.functional

from tests.support.warm import run_processes
from tests.train.test_pretrain import photos, write_recipe  # noqa: F401 - a fixture
from train import distributed, pretrain
from train.model.moco import Clip, MoCo
from train.model.towers import TwoTowers

# No dropout, whose random numbers differ between processes and parts; a low rate, because AdamW's first steps make
# differences of rounding as large as gradients.
NO_DROPOUT = [f"model.text.backbone.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
CHANGES = ["model.image.freeze_bn=true", "train.bf16=false", "train.lr=1e-4", *NO_DROPOUT]


def settings(*changes: str) -> list[str]:
    return [part for change in (*CHANGES, *changes) for part in ("--set", change)]


def losses(run: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["step"]])


def weights(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.pt", weights_only=True)["model"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[str, Path]:  # noqa: F811
    """The run of one process, and its recipe."""
    folder = tmp_path_factory.mktemp("alone")
    recipe = write_recipe(
        folder, photos, backbone="mobilenetv2_035", steps=20, batch=24, eval_every=20, warmup=5, workers=0
    )
    pretrain.main([str(recipe), *settings(f'run="{folder / "run"}"')])
    return {"recipe": recipe, "run": folder / "run"}


@pytest.mark.slow
def test_two_processes_are_one_with_the_double_batch(alone: dict[str, Path], tmp_path: Path) -> None:
    changes = settings(f'run="{tmp_path / "run"}"')
    run_processes("tests.train.test_distributed._train", [str(alone["recipe"]), *changes])
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone["run"]), rtol=1e-3)
    one, two = weights(alone["run"]), weights(tmp_path / "run")
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith("queue.ids"):
            assert one[name].tolist() == two[name].tolist()  # keys of both processes, in the same order
    vectors = [w["slow.text.head.fc2.weight"] for w in (one, two)]
    torch.testing.assert_close(*vectors, rtol=1e-2, atol=2e-4)  # 20 steps moved them by up to 2e-3


def _train(rank: int, *arguments: str) -> None:
    pretrain.main(list(arguments))


def toy(loss: str) -> MoCo | Clip:
    torch.manual_seed(0)

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 8)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return torch.nn.functional.normalize(self.linear(x), dim=-1)

    towers = TwoTowers(Tower(), Tower())
    model = (
        MoCo(towers, 8, queue_size=16, in_batch_negatives=True)
        if loss == "moco"
        else Clip(towers, learned_temperature=True)
    )
    return model.double()


def gradients(loss: str, rank: int, processes: int, parts: int = 1) -> list[torch.Tensor]:
    """Of two steps, the second with keys of the first in the queue, for 12 images with 2 captions each."""
    model = toy(loss)
    parameters = [p for p in model.parameters() if p.requires_grad]
    rng = torch.Generator().manual_seed(1)
    for _ in range(2):
        images, texts = torch.randn(12, 4, generator=rng).double(), torch.randn(24, 4, generator=rng).double()
        mine = slice(rank * 12 // processes, (rank + 1) * 12 // processes)
        captions = texts[mine.start * 2 : mine.stop * 2]
        model.zero_grad()
        for share in model.losses(images[mine], captions, torch.ones(len(captions), 1), torch.arange(12)[mine], parts):
            share.backward()
        distributed.average_gradients(parameters)
    return [p.grad.clone() for p in parameters if p.grad is not None]


def gathered(gather: Callable[[torch.Tensor], torch.Tensor], rank: int) -> torch.Tensor:
    """The gradient that comes back to this process' rows, where every process has a loss of its own."""
    rows = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(rank)).double().requires_grad_()
    (gather(rows.transpose(0, 1)).pow(3) * torch.arange(60).view(4, 3, 5) * (rank + 1)).sum().backward()
    assert rows.grad is not None
    return rows.grad


def _process(rank: int, folder: str) -> None:
    distributed.start("cpu")
    torch.save({loss: gradients(loss, rank, 2) for loss in ("moco", "clip")}, f"{folder}/{rank}.pt")
    theirs = getattr(torch.distributed.nn.functional, "all_gather", None)  # deprecated, so it may go
    if theirs is not None:
        found = gathered(distributed.gather_with_gradient, rank)
        torch.testing.assert_close(found, gathered(lambda x: torch.cat(theirs(x)), rank))
    distributed.stop()


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    run_processes("tests.train.test_distributed._process", [str(tmp_path)])
    for rank in range(2):
        for loss, found in torch.load(tmp_path / f"{rank}.pt").items():
            for got, want in zip(found, gradients(loss, 0, 1), strict=True):
                torch.testing.assert_close(got, want)


def test_gradients_of_parts_are_those_of_the_whole() -> None:
    for parts in (2, 4):
        for got, want in zip(gradients("moco", 0, 1, parts), gradients("moco", 0, 1), strict=True):
            torch.testing.assert_close(got, want)


def test_accumulated_parts_are_one_batch(alone: dict[str, Path], tmp_path: Path) -> None:
    pretrain.main([str(alone["recipe"]), *settings("train.accumulate=3", f'run="{tmp_path / "run"}"')])
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone["run"]), rtol=2e-4)
    assert weights(tmp_path / "run")["text_queue.ids"].tolist() == weights(alone["run"])["text_queue.ids"].tolist()


def test_gradient_checkpointing_changes_nothing(alone: dict[str, Path], tmp_path: Path) -> None:
    pretrain.main([str(alone["recipe"]), *settings("train.gradient_checkpointing=true", f'run="{tmp_path / "run"}"')])
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone["run"]), rtol=2e-4)


def test_impossible_splits_are_refused(
    alone: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        pretrain.main([str(alone["recipe"]), *settings("train.accumulate=5", f'run="{tmp_path / "run"}"')])
    assert "train: batch = 24 is no multiple of accumulate = 5" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^2$"):
        pretrain.main(
            [str(alone["recipe"]), *settings("train.accumulate=2", 'train.loss="clip"', f'run="{tmp_path / "r"}"')]
        )
    assert 'loss = "clip" needs the whole batch at once' in capsys.readouterr().err
