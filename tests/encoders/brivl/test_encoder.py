"""Towers, regions, checkpoints and the registry, on a tiny random model."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brivl_search.encoders import load_encoder
from brivl_search.encoders.brivl.backbones import Backbone
from brivl_search.encoders.brivl.config import BackboneConfig, HeadConfig, ModelConfig
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.heads import TowerHead, masked_mean
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.regions import grid_boxes, pooling_matrix
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny import make_checkpoint, tiny_model


def pixels(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_grid_is_36_cells_x_outer_and_the_whole_image_last() -> None:
    boxes = grid_boxes([6, 1], 12, 12)
    assert boxes.shape == (37, 4)
    assert boxes[0].tolist() == [0, 0, 2, 2] and boxes[1].tolist() == [0, 2, 2, 4]
    assert boxes[-1].tolist() == [0, 0, 12, 12]


def test_pooling_matrix_equals_brivls_roi_sampling() -> None:
    """Against the published recipe: affine grid with the align_corners=True formula, sampled with the default."""
    features, boxes = torch.randn(5, 7, 9), grid_boxes([6, 1], 9, 7)
    want = []
    for x1, y1, x2, y2 in boxes.tolist():
        theta = torch.tensor([[(x2 - x1) / 8, 0, (x1 + x2 - 9 + 1) / 8], [0, (y2 - y1) / 6, (y1 + y2 - 7 + 1) / 6]])
        grid = F.affine_grid(theta[None], [1, 5, 4, 4], align_corners=False)
        want.append(F.avg_pool2d(F.grid_sample(features[None], grid, align_corners=False), 4).flatten())
    torch.testing.assert_close(
        pooling_matrix([6, 1], 7, 9) @ features.flatten(1).T, torch.stack(want), atol=1e-5, rtol=1e-4
    )


def test_masked_mean_ignores_padding_and_survives_an_empty_row() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(tokens, mask).flatten().tolist() == [2.0, 0.0]


def test_head_gives_unit_vectors() -> None:
    head = TowerHead(16, 8, HeadConfig(layers=2, heads=2, feedforward=8, dropout=0.0)).eval()
    out = head(torch.randn(3, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool())
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))


def test_text_vector_does_not_depend_on_padding(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint, precision="fp32")
    alone = encoder.encode_texts(["a red dog"])
    beside = encoder.encode_texts(["a red dog", "the green circle on the blue square with a red cross"])
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)
    assert abs(float(beside[0] @ beside[1])) < 0.9999


def test_images_and_texts_are_unit_float32(tiny_checkpoint: Path) -> None:
    encoder = load_encoder(str(tiny_checkpoint))
    images, texts = encoder.encode_images(pixels(5)), encoder.encode_texts(["红色的圆", "dog"])
    assert images.shape == (5, 32) and texts.shape == (2, 32) and images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, 32)
    with pytest.raises(UsageError, match="uint8"):
        encoder.encode_images(np.zeros((1, 64, 64, 3), dtype=np.float32))


def test_bf16_and_fp32_agree(tiny_checkpoint: Path) -> None:
    batch = pixels(4)
    a = BriVLEncoder(tiny_checkpoint, precision="fp32").encode_images(batch)
    b = BriVLEncoder(tiny_checkpoint, precision="bf16").encode_images(batch)
    assert (a * b).sum(1).min() > 0.99  # eight bits of mantissa through a random network


def test_few_tokens_are_float32_and_agree_with_bf16(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text takes the precise path, many the fast one; no vector changes by more than bfloat16's noise."""
    monkeypatch.setattr("brivl_search.encoders.device.has_fast_bf16", lambda device: True)
    auto, exact, fast = (BriVLEncoder(tiny_checkpoint, device="cpu", precision=p) for p in ("auto", "fp32", "bf16"))
    texts = ["a red dog", "一只在草地上的狗", "the green circle on the blue square"]
    for text in texts:
        np.testing.assert_array_equal(auto.encode_texts([text]), exact.encode_texts([text]))
        assert float(auto.encode_texts([text])[0] @ fast.encode_texts([text])[0]) >= 0.999
    many = auto.encode_texts(texts * 10)
    np.testing.assert_array_equal(many, fast.encode_texts(texts * 10))
    alone = np.concatenate([auto.encode_texts([text]) for text in texts])
    assert (many[:3] * alone).sum(1).min() >= 0.999
    assert auto.fingerprint == exact.fingerprint == fast.fingerprint


def test_towers_load_lazily_and_alone(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint)
    encoder.encode_texts(["dog"])
    assert "text_tower" in vars(encoder) and "image_tower" not in vars(encoder)


def test_long_texts_are_cut_and_counted(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint)
    long = "red " * 40
    assert encoder.cut_tokens(["red dog", long]) == [0, 40 + 2 - 16]
    vectors = encoder.encode_texts([long, long + "green"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


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


def test_paper_size_is_the_same_code() -> None:
    """BriVL's released sizes, built on the meta device: parameter counts of the published towers."""
    with torch.device("meta"):
        config = ModelConfig.from_dict(
            {"dim": 2048, "image": {"backbones": [{"name": "tf_efficientnet_b5.ns_jft_in1k"}]}}
        )
        text = TextTower(config.text, 2048)
        image = ImageTower(config.image, 2048)
    count = sum(p.numel() for p in image.parameters()) / 1e6
    assert 141 < count < 142.5  # 143.7M in the release, which also carries the unused 2.05M classifier
    # 102.3M + 27.8M in the release; its BERT has a pooler of 0.59M that BriVL never uses
    assert 129 < sum(p.numel() for p in text.parameters()) / 1e6 < 130


def test_checkpoint_round_trip_and_fingerprint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    a, b = BriVLEncoder(tiny_checkpoint), BriVLEncoder(copy)
    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.encode_texts(["dog"]), b.encode_texts(["dog"]))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "name": "other", "training": {"step": 5}}))
    assert BriVLEncoder(copy).fingerprint == a.fingerprint
    config["image"]["backbones"][0]["mean"] = [0.4, 0.4, 0.4]
    (copy / "config.json").write_text(json.dumps(config))
    assert BriVLEncoder(copy).fingerprint != a.fingerprint
    assert BriVLEncoder(make_checkpoint(tmp_path / "other", seed=1)).fingerprint != a.fingerprint


def test_config_round_trip() -> None:
    config = ModelConfig.from_dict(tiny_model())
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert dataclasses.asdict(config)["image"]["pixels"]["size"] == 64


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"123"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text('{"version": 99}'), "newer"),
        (lambda f: (f / "config.json").write_text('{"depth": 3}'), "depth"),
        (lambda f: (f / "tokenizer.json").unlink(), "neither tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    ],
)
def test_damaged_checkpoints_are_named(tmp_path: Path, tiny_checkpoint: Path, damage, words: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, folder)
    damage(folder)
    with pytest.raises(EncoderError, match=words):
        load_encoder(str(folder)).encode_texts(["dog"])


def test_weights_of_another_shape_are_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["dim"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="does not fit"):
        load_encoder(str(folder)).encode_texts(["dog"])


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(EncoderError, match=r"no encoder 'nonsense'.*known name"):
        load_encoder("nonsense")
    with pytest.raises(EncoderError, match="timm cannot build"):
        ImageTower(ModelConfig.from_dict(tiny_model(image={"backbones": [{"name": "no_such_net"}]})).image, 32)


def test_an_unknown_device_is_a_usage_error(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="cuda:77"):
        BriVLEncoder(tiny_checkpoint, device="cuda:77").encode_texts(["dog"])


def test_importing_encoders_does_not_import_torch() -> None:
    heavy = ("torch", "timm", "transformers", "faiss")
    code = f"import sys, brivl_search.encoders; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
