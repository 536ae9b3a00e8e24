"""What a classifier sees, added to the heads' vectors; and checkpoints with and without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.seen import Seen
from brivl_search.errors import EncoderError
from tests.support.tiny import make_checkpoint, tiny_model


def with_classes(**changes: object) -> dict[str, object]:
    image = {**tiny_model()["image"], "classes": 3, "class_backbones": [0], "members": 2, **changes}
    return {"image": image}


def test_mean_of_the_classes_by_their_probability() -> None:
    torch.manual_seed(0)
    seen = Seen(4, 3, 2, [1])
    maps = [torch.randn(5, 6, 2, 2), torch.randn(5, 4, 2, 2)]  # the second backbone's map is read alone
    shares = (maps[1].mean((2, 3)) @ seen.classifier.weight.T + seen.classifier.bias).softmax(1)
    torch.testing.assert_close(seen(maps), 0.5 * shares @ seen.names.weight.T)


def test_every_head_gets_it() -> None:
    torch.manual_seed(0)
    config = ModelConfig.from_dict(tiny_model(**with_classes()))
    tower = ImageTower(config.image, config.dim).eval()
    maps = [torch.rand(2, tower.cnns()[0].channels, 2, 2)]
    with torch.inference_mode():
        whole, said = tower.embed_members(maps), tower.seen(maps) if tower.seen is not None else None
        tower.seen = None
        alone = tower.embed_members(maps)
    assert said is not None and whole.shape == (2, 2, 32)
    torch.testing.assert_close(whole, F.normalize(alone + said, dim=-1))


def test_a_checkpoint_with_classes(tmp_path: Path) -> None:
    encoder = BriVLEncoder(make_checkpoint(tmp_path / "seen", **with_classes()))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    before = encoder.encode_images(pixels)
    assert encoder.image_tower.seen is not None
    with torch.no_grad():
        encoder.image_tower.seen.weight.zero_()
    assert np.abs(encoder.encode_images(pixels) - before).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, atol=1e-3)


def test_without_classes_nothing_changes(tiny_checkpoint: Path) -> None:
    config = ModelConfig.from_dict(tiny_model())
    assert "classes" not in config.sizes()["image"] and "class_backbones" not in config.sizes()["image"]
    assert not any(name.startswith("seen") for name in ImageTower(config.image, 32).state_dict())
    assert ModelConfig.from_dict(tiny_model(**with_classes())).sizes()["image"]["classes"] == 3


@pytest.mark.parametrize(
    "changes", [{"classes": 0}, {"class_backbones": []}, {"class_backbones": [1]}, {"classes": -1}]
)
def test_classes_that_no_backbone_tells_apart(changes: dict[str, object]) -> None:
    with pytest.raises(EncoderError, match="class_backbones go together"):
        ModelConfig.from_dict(tiny_model(**with_classes(**changes)))
