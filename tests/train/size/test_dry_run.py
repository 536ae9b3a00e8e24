"""What `--dry-run` says of a small model is what the model then does: FLOPs, saved bytes, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brivl_search.encoders.brivl.config import ModelConfig
from tests.support.folders import REPO
from tests.support.recipes import training
from tests.support.tiny import tiny_model
from train import pretrain
from train.model.build import build_towers, objective
from train.model.moco import MoCo
from train.size import dry_run
from train.size.cost import measure, segments

FROZEN = {"frozen_blocks": [4], "frozen_text_layers": 1, "frozen_cnn_modules": ["conv_head"]}


def made(backbone: str = "mobilenetv2_035", **train: Any) -> tuple[MoCo, dict[str, torch.Tensor]]:
    model = tiny_model()
    model["image"]["backbones"] = [{"name": backbone}]
    model["text"]["backbone"] |= {
        "num_hidden_layers": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = ModelConfig.from_dict(model)
    torch.manual_seed(0)
    cfg = training(**{"queue_size": 32, "in_batch_negatives": True, **train})
    moco = objective(build_towers(config, cfg), config.dim, cfg)
    assert isinstance(moco, MoCo)
    moco.online.text_chunks = moco.slow.text_chunks = 1
    moco.train()
    batch = {
        "images": torch.randint(255, (4, 64, 64, 3), dtype=torch.uint8),
        "token_ids": torch.randint(100, (4, 16)),
        "token_mask": torch.ones(4, 16, dtype=torch.bool),
        "ids": torch.arange(4),
    }
    moco(**batch)  # the first call also makes pooling matrices and measures widths
    return moco, batch


@pytest.fixture
def no_fused_layers() -> Iterator[None]:
    """Momentum towers run torch's fused transformer layer, whose inside no counter sees."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.usefixtures("no_fused_layers")
@pytest.mark.parametrize("train", [{}, FROZEN])
def test_forward_flops_are_those_that_torch_counts(train: dict[str, Any]) -> None:
    moco, batch = made(**train)
    with sdpa_kernel(SDPBackend.MATH):  # whose products the counter sees
        with FlopCounterMode(display=False) as counter:
            moco(**batch)
        cost = measure(moco, batch, bf16=False)
    assert sum(cost.forward.values()) == pytest.approx(counter.get_total_flops(), rel=1e-9)
    assert min(cost.forward[part] for part in ("image", "text", "momentum", "loss")) > 0
    assert sum(cost.backward.values()) < 2 * sum(cost.forward.values())


@pytest.mark.usefixtures("no_fused_layers")
@pytest.mark.parametrize("train", [{}, {"frozen_text_layers": 1}])
def test_flops_of_a_step_are_those_that_torch_counts(train: dict[str, Any]) -> None:
    """Without grouped convolutions, whose backward pass torch 2.14's counter takes for that of full ones."""
    moco, batch = made("test_resnet", **train)
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            moco(**batch).backward()
        cost = measure(moco, batch, bf16=False)
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize("train", [{}, FROZEN])
def test_saved_bytes_are_those_that_autograd_saves(train: dict[str, Any]) -> None:
    moco, batch = made(**train)
    cost = measure(moco, batch, bf16=False)
    state = {t.untyped_storage()._cdata for t in (*moco.parameters(), *moco.buffers())}

    def saved() -> int:
        kept: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in state:
                kept.setdefault(tensor.untyped_storage()._cdata, tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            moco(**batch)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    assert saved() == cost.saved
    moco.online.text.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for backbone in moco.online.image.backbones:
        backbone.net.set_grad_checkpointing(True)
    # What is there between the passes; the largest segment comes when its own backward pass recomputes it. The
    # checkpoint function also keeps the inputs of frozen layers, which need none.
    assert saved() == pytest.approx(cost.checkpointed - cost.segment, rel=0.04)
    assert cost.checkpointed < cost.saved and cost.segment > 0 and cost.recomputed > 0


def test_checkpointed_blocks_behind_frozen_ones_are_recomputed() -> None:
    moco, batch = made(**FROZEN)
    runs = []
    for block in segments(moco):
        block.register_forward_pre_hook(
            lambda module, _: runs.append(module)
        )  # a recomputation may stop before the end
    for enabled in (False, True):
        runs.clear()
        moco.online.image.backbones[0].net.set_grad_checkpointing(enabled)
        moco(**batch).backward()
        if not enabled:
            once = len(runs)
    assert len(runs) > once


def test_fake_tensors_cost_what_real_ones_do() -> None:
    model = tiny_model()
    config = ModelConfig.from_dict(model)
    cfg = training(queue_size=32, bf16=True)
    found = dry_run.sizes(config, cfg)
    towers = build_towers(config, cfg)
    assert found.all == sum(p.numel() for p in towers.parameters())
    moco = objective(towers, config.dim, cfg)
    moco.online.text_chunks = moco.slow.text_chunks = 1
    moco.train()
    costs = []
    for pairs in (8, 16):
        batch = {
            "images": torch.zeros(pairs, 64, 64, 3, dtype=torch.uint8),
            "token_ids": torch.zeros(pairs, 16, dtype=torch.long),
            "token_mask": torch.ones(pairs, 16, dtype=torch.bool),
            "ids": torch.arange(pairs),
        }
        costs.append(measure(moco, batch, bf16=True))
    assert found.flops["backward"] == pytest.approx(
        (sum(costs[1].backward.values()) - sum(costs[0].backward.values())) / 8, rel=1e-6
    )
    assert found.a_pair["plain"] == pytest.approx((costs[1].saved - costs[0].saved) / 8, rel=0.01)
    assert found.queue == sum(
        buffer.numel() * buffer.element_size()
        for queue in (moco.image_queue, moco.text_queue)
        for buffer in (queue.keys, queue.ids)
    )


def test_a_plan_says_what_fits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = dry_run.Sizes(
        {"image": (200, 100), "text": (300, 100)}, 0, 0, 0, {"plain": 1e9, "checkpointed": 1e8}, 0.0, {"backward": 1.0}
    )
    states = found.states()
    assert sum(states.values()) - dry_run.OVERHEAD == 4 * 500 * 2 + 12 * 200
    sharded = found.sharded(4)
    assert sharded["ZeRO-1"] == pytest.approx(sum(states.values()) - 8 * 200 * 3 / 4)
    assert sharded["ZeRO-3 / FSDP"] == pytest.approx(dry_run.OVERHEAD + (4 * 500 * 2 + 12 * 200) / 4)
    assert found.fits(42e9, 2e9, "plain") == 37 and found.fits(42e9, 50e9, "plain") == 0
    assert dry_run._verdict(37, 379, 24) == "yes"
    assert "gradient_checkpointing" in dry_run._verdict(10, 379, 24)
    assert "accumulate = 3" in dry_run._verdict(2, 8, 24)
    assert "ZeRO or FSDP" in dry_run._verdict(0, 0, 24)
    recipe = REPO / "train" / "recipes" / "brivl-1.0.toml"
    with pytest.raises(SystemExit, match="--gpu tpu is not known"):
        pretrain.main([str(recipe), "--dry-run", "--gpu", "tpu"])


def test_the_released_size_is_counted_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """143.7 M and 130.1 M parameters are published, with a 1000-class layer and a pooler that nothing uses."""
    recipe = REPO / "train" / "recipes" / "brivl-1.0.toml"
    pretrain.main([str(recipe), "--dry-run", "--gpus", "8", "--gpu", "a100-40"])
    out = capsys.readouterr().out
    figures = {line.split()[0]: float(line.split()[2]) for line in out.splitlines() if " tower  " in line}
    assert figures["image"] == pytest.approx(143.7 - 2.05, abs=0.1)
    assert figures["text"] == pytest.approx(130.1 - 0.59, abs=0.1)
    assert "days on 8 × a100-40" in out and "yes" in out
