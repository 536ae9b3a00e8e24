"""Damaged folders of matchers, captioners and two towers: each says which file, and what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captions.captioner import FolderCaptioner
from brivl_search.encoders.model_folder import kind_of
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher
from brivl_search.errors import EncoderError
from tests.support.captioners import make_captioner
from tests.support.matchers import make_matcher
from tests.support.tiny import make_checkpoint

KINDS = ("matcher", "captioner", "towers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = tmp_path_factory.mktemp("whole")
    towers = make_checkpoint(whole / "towers")
    make_matcher(whole / "matcher", towers)
    make_captioner(whole / "captioner", towers)
    return whole


@pytest.fixture
def use(folders: Path, tmp_path: Path) -> Callable[[str], Callable[[], object]]:
    """Copies a folder to `damaged`; what is returned opens it."""

    def copied(kind: str) -> Callable[[], object]:
        damaged = Path(shutil.copytree(folders / kind, tmp_path / "damaged"))
        encoder = BriVLEncoder(folders / "towers", device="cpu", precision="fp32")
        if kind == "matcher":
            return lambda: OneTowerMatcher(damaged, encoder, device="cpu", precision="fp32").model
        if kind == "captioner":
            return lambda: FolderCaptioner(damaged, encoder, device="cpu", precision="fp32").model
        return lambda: BriVLEncoder(damaged, device="cpu", precision="fp32").text_tower

    return copied


def changed(folder: Path, **values: object) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | values), encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_nested_too_deeply(kind: str, use: Callable[..., Callable[[], object]], tmp_path: Path) -> None:
    opened = use(kind)
    (tmp_path / "damaged" / "config.json").write_text('{"a":' * 100_000, encoding="utf-8")
    assert kind_of(tmp_path / "damaged") == ""
    with pytest.raises(EncoderError, match=r"config\.json cannot be read: it is nested too deeply"):
        opened()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_not_finite(kind: str, use: Callable[..., Callable[[], object]], tmp_path: Path) -> None:
    opened = use(kind)
    path = tmp_path / "damaged" / "model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if tensors[n].is_floating_point() and not n.startswith("image."))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(EncoderError, match=rf"model\.safetensors is damaged: {name} has numbers that are not finite"):
        opened()


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("matcher", {"width": 10**14}, "cannot be built"),
        ("captioner", {"max_length": 10**14}, "cannot be built"),
        ("towers", {"dim": 10**14}, "cannot be built"),
        ("towers", {"version": [2]}, "does not describe a BriVL model"),
        ("matcher", {"dropout": 7.0}, "dropout = 7.0: give a share"),
        ("captioner", {"region_dropout": -1.0}, "region_dropout = -1.0: give a share"),
        ("matcher", {"cosine_weight": float("nan")}, "cosine_weight = nan: give a finite number"),
        ("captioner", {"length_power": float("inf")}, "length_power = inf: give a finite number"),
    ],
)
def test_values_that_no_model_can_have(
    kind: str, values: dict[str, object], said: str, use: Callable[..., Callable[[], object]], tmp_path: Path
) -> None:
    opened = use(kind)
    changed(tmp_path / "damaged", **values)
    with pytest.raises(EncoderError, match=said) as error:
        opened()
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


def test_a_whole_folder_opens(use: Callable[..., Callable[[], object]]) -> None:
    assert isinstance(use("matcher")(), torch.nn.Module)
