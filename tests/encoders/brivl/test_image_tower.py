"""The image tower: several backbones, running in parts, heads as members, what training drops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders.brivl.boxes import box_batch
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.errors import EncoderError
from tests.support.tiny import tiny_model


def pixels(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def two_backbones() -> ImageTower:
    image = tiny_model()["image"]
    image["backbones"] = [{"name": "mobilenetv2_035"}, {"name": "mobilenetv2_050", "mean": [0.5] * 3, "std": [0.5] * 3}]
    return ImageTower(ModelConfig.from_dict(tiny_model(image=image)).image, 32).eval()


def test_a_tower_run_in_parts_is_the_whole_tower() -> None:
    tower = two_backbones()
    batch = torch.from_numpy(pixels(2))
    with torch.inference_mode():
        cached = tower.early(batch, [5, 6])
        torch.testing.assert_close(tower.embed(tower.maps(cached, [5, 6])), tower(batch))
        further = tower.between(cached, [5, 6], [17, 18])  # 18 steps: 17 blocks and the head convolution
        torch.testing.assert_close(tower.embed(tower.maps(further, [17, 18])), tower(batch))
    frozen = {id(p) for module in tower.frozen_modules([18, 18]) for p in module.parameters()}
    assert frozen == {id(p) for p in tower.backbones.parameters()}


def test_every_backbone_sees_its_own_normalised_pixels_and_counts() -> None:
    tower = two_backbones()
    batch = torch.from_numpy(pixels(1))
    for backbone in tower.backbones:
        expected = batch.permute(0, 3, 1, 2).float() / 255
        expected = (expected - backbone.mean.view(3, 1, 1) / 255) / (backbone.std.view(3, 1, 1) / 255)
        torch.testing.assert_close(backbone.normalize(batch), expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        maps = [backbone(batch) for backbone in tower.backbones]
        whole = tower.embed(maps)
        for i in range(2):
            changed = [m.clone() for m in maps]
            changed[i] += 1
            assert not torch.allclose(tower.embed(changed), whole, atol=1e-4)


def test_maps_of_different_sizes_cannot_be_cached_together() -> None:
    with pytest.raises(EncoderError, match="one size, not "):
        two_backbones().early(torch.from_numpy(pixels(1)), [3, 17])


def test_batchnorm_stays_frozen_in_training() -> None:
    tower = ImageTower(ModelConfig.from_dict(tiny_model()).image, 32).train()
    before = tower.backbones[0].net.bn1.running_mean.clone()
    tower(torch.from_numpy(pixels(2)))
    torch.testing.assert_close(tower.backbones[0].net.bn1.running_mean, before)
    assert tower.head.training


def test_channel_dropout_in_training_is_no_padding_mask() -> None:
    """The channels' mask once took the place of the regions' and reached the self-attention."""
    image = tiny_model()["image"] | {"feature_dropout": 0.5, "region_dropout": 0.5}
    tower = ImageTower(ModelConfig.from_dict(tiny_model(image=image)).image, 32).train()
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    boxes, mask = map(torch.from_numpy, box_batch([np.array([[0, 0, 0.5, 0.5]], np.float32), None, None], [2, 1], 5))
    for regions in ((), (boxes, mask)):
        vectors = tower(pixels, *regions)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_members_are_heads_whose_mean_direction_is_the_vector() -> None:
    torch.manual_seed(0)
    config = ModelConfig.from_dict(tiny_model(image=tiny_model()["image"] | {"members": 3, "region_dropout": 0.5}))
    tower = ImageTower(config.image, 32).eval()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        vectors = tower.embed_members([backbone(pixels) for backbone in tower.backbones])
        assert vectors.shape == (3, 2, 32)
        assert len({tuple(v.flatten().tolist()) for v in vectors}) == 3  # of weights of their own
        torch.testing.assert_close(tower(pixels), F.normalize(vectors.mean(0), dim=1))
        alone = ImageTower(ModelConfig.from_dict(tiny_model()).image, 32).eval()
        alone.load_state_dict({k: v for k, v in tower.state_dict().items() if not k.startswith("members.")})
        torch.testing.assert_close(alone(pixels), vectors[0])
    assert ModelConfig.from_dict(tiny_model()).sizes()["image"].get("members") is None  # old fingerprints stay
    assert config.sizes()["image"]["members"] == 3
    with pytest.raises(EncoderError, match=r"image\.members is 1 or more, not 0"):
        ModelConfig.from_dict(tiny_model(image={"members": 0}))
