"""The released BriVL at its real size: 2,320 names and shapes, parameter counts, which model a file is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.official import checkpoint as official
from brivl_search.encoders.brivl.official.checkpoint import UNUSED, OfficialCheckpoint, published_config
from brivl_search.encoders.brivl.official.convert import expected
from brivl_search.errors import EncoderError, UsageError
from tests.support.folders import SHARED
from tests.support.official import (
    Reference,
)

# sha256 over the 2,320 lines "name (shape) dtype", sorted, of the released BriVL-1.0-5500w.pth.
RELEASED = "0dc29be43a01279eb33e6a072d0b65100f5e5d12df87ad4d8725f6e7cf2a2dc1"


def synthetic(config: ModelConfig) -> dict[str, torch.Tensor]:
    """A whole official state dict in which every tensor is one number, seen through strides of zero."""
    with torch.device("meta"):
        state = Reference(config.to_dict()).official_state(momentum=True)
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in state.items()}


def parameters(state: dict[str, torch.Tensor], prefix: str) -> float:
    buffers = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
    return sum(t.numel() for n, t in state.items() if n.startswith(prefix) and not n.endswith(buffers)) / 1e6


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    state = synthetic(published_config("brivl-1.0"))
    path = tmp_path_factory.mktemp("released") / "BriVL-1.0-5500w.pth"
    torch.save({"learnable": state}, path)
    return path, state


def test_every_name_and_shape_of_the_released_file(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    """All 2,320 tensors: each has a place in our towers, or is one that BriVL never uses; no place stays empty."""
    path, state = released
    lines = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in sorted(state.items())]
    assert len(lines) == 2320 and hashlib.sha256("\n".join(lines).encode()).hexdigest() == RELEASED
    assert path.stat().st_size < 3_000_000
    checkpoint = OfficialCheckpoint(str(path))
    assert checkpoint.config.name == "brivl-1.0"
    for tower, prefix in official.TOWERS.items():
        wanted = {name: t.shape for name, t in expected(checkpoint.config, tower).items()}
        for momentum in (False, True):
            found = {name: t.shape for name, t in checkpoint.tensors(tower, momentum=momentum).items()}
            assert found == wanted
        names = [name.removeprefix(prefix + ".") for name in state if name.startswith(prefix + ".")]
        unused = [name for name in names if name.startswith(UNUSED[tower])]
        assert len(unused) == {"image": 2, "text": 3}[tower] and len(names) == len(wanted) + len(unused)


def test_strict_load_at_the_released_size(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    from brivl_search.encoders.brivl.image_tower import ImageTower
    from brivl_search.encoders.brivl.text_tower import TextTower

    path, _ = released
    checkpoint = OfficialCheckpoint(f"{path}@brivl-1.0")
    with torch.device("meta"):
        image = ImageTower(checkpoint.config.image, 2048)
        text = TextTower(checkpoint.config.text, 2048)
    for tower, module in (("image", image), ("text", text)):
        module.load_state_dict(checkpoint.tensors(tower), strict=True, assign=True)
        assert not any(p.is_meta for p in module.parameters())


def test_parameters_of_the_released_and_the_papers_size(released: tuple[Path, dict[str, torch.Tensor]]) -> None:
    _, state = released
    paper = synthetic(published_config("brivl-paper"))
    counts = [[round(parameters(s, t + "."), 1) for t in official.TOWERS.values()] for s in (state, paper)]
    assert counts == [[143.7, 130.1], [232.9, 368.3]]
    # ours are these without the CNN's classifier and BERT's pooler
    for tower, left_out in (("image", 2560 * 1000 + 1000), ("text", 1024 * 1024 + 1024)):
        ours = sum(
            t.numel()
            for n, t in expected(published_config("brivl-paper"), tower).items()
            if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))
        )
        prefix = official.TOWERS[tower] + "."
        assert ours + left_out == round(parameters(paper, prefix) * 1e6)


@pytest.mark.shared
def test_the_digest_is_of_the_published_list() -> None:
    facts = SHARED / "facts/brivl_state_dict_keys.json"
    if not facts.is_file():
        pytest.skip("no ../shared")
    names = json.loads(facts.read_text(encoding="utf-8"))
    lines = [f"{name} {tuple(shape)} {dtype}" for name, (shape, dtype) in sorted(names.items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == RELEASED


def test_model_by_size_then_by_file_name(released: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    path, state = released
    towers = {"1": "brivl-1.0", "2": "brivl-2.0"}
    for name, sign in (("x-2.0.pth", "2"), ("brivl-with-roberta-base.pth", "2"), ("brivl-5500w.pth", "1")):
        (tmp_path / name).write_bytes(path.read_bytes())
        assert OfficialCheckpoint(str(tmp_path / name)).config.name == towers[sign]
    (tmp_path / "weights.pth").write_bytes(path.read_bytes())
    with pytest.raises(EncoderError, match=r"brivl-1\.0 or brivl-2\.0.*official:.*@brivl-2\.0"):
        OfficialCheckpoint(str(tmp_path / "weights.pth"))
    assert OfficialCheckpoint(f"{tmp_path}/weights.pth@brivl-2.0").config.image.pixels.size == 456
    with pytest.raises(UsageError, match="no published model 'brivl-3'"):
        OfficialCheckpoint(f"{tmp_path}/weights.pth@brivl-3")
    one = {n: t for n, t in state.items() if n.startswith("textencoder.")}
    one["textencoder.learnable.textFC.fc2.bias"] = torch.zeros(99)
    torch.save({"learnable": one}, tmp_path / "odd-1.0.pth")
    with pytest.raises(EncoderError, match=r"no published size: describe it in odd-1\.0\.json"):
        OfficialCheckpoint(str(tmp_path / "odd-1.0.pth"))
