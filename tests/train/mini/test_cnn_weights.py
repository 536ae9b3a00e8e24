"""Weights of a package under timm's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.weights import write_tensors
from tests.support.tiny import tiny_model
from train.mini.cnn_weights import renamed
from train.model.start import load_cnns


def test_tensors_in_order_under_other_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_035", pretrained=False)
    foreign = {f"layer{i}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(network.state_dict().items())}
    tensors = renamed(foreign, network.state_dict())
    assert all(torch.equal(tensors[name], network.state_dict()[name]) for name in tensors)
    write_tensors(tmp_path / "cnn.safetensors", tensors, half=False)
    tower = ImageTower(ModelConfig.from_dict(tiny_model()).image, 32)
    load_cnns(tower, [tmp_path / "cnn.safetensors"])
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        tower.eval(), network.eval()
        torch.testing.assert_close(tower.backbones[0].net.forward_features(pixels), network.forward_features(pixels))
    with pytest.raises(SystemExit, match="are not those of the network"):
        renamed(dict(list(foreign.items())[1:]), network.state_dict())
