"""A CNN of the image tower: its normalisation, and its BatchNorms folded into the convolutions."""

from __future__ import annotations

import pytest
import torch

from brivl_search.encoders.brivl.backbones import Backbone
from brivl_search.encoders.brivl.config import BackboneConfig


@pytest.mark.parametrize("name", ["mobilenetv2_035", "mobilenet_edgetpu_100", "tf_efficientnet_b0", "test_resnet"])
def test_fused_norms_give_the_same_map(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name=name)).eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    pixels = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        before = backbone(pixels)
    backbone.fuse()
    with torch.inference_mode():
        torch.testing.assert_close(backbone(pixels), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    assert left == 0 or name == "test_resnet"
