"""Detectors: their boxes, what they see of a picture, and how an index remembers where its regions come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.detector import Detector
from brivl_search.errors import UsageError
from tests.support.pictures import write_corpus
from tests.support.site import Ended
from tests.support.tiny import write_boxes


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DETR of some ten thousand parameters, as a folder."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=12,
        num_labels=3,
    )
    folder = tmp_path_factory.mktemp("detr")
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def test_a_detr_of_transformers(detr: Path) -> None:
    """The boxes are those of its own pipeline, best first, as shares of the picture."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    detector = Detector(f"hf:{detr}", device="cpu", most=5)
    found = detector.find(pixels, None)
    processor, model = AutoImageProcessor.from_pretrained(detr), AutoModelForObjectDetection.from_pretrained(detr)
    with torch.inference_mode():
        output = model.eval()(**processor(images=list(pixels), return_tensors="pt"))
    for one, logits, boxes in zip(found, output.logits, output.pred_boxes, strict=True):
        scores = logits.softmax(-1)[:, :-1].max(-1).values
        x, y, w, h = boxes[scores.argsort(descending=True)[:5]].unbind(-1)
        want = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clamp(0, 1)
        assert one is not None and one.shape == (5, 4) and one.dtype == np.float32
        np.testing.assert_allclose(one, want.numpy(), atol=1e-4)
    other = Detector(f"hf:{detr}", most=6)
    assert other.fingerprint != detector.fingerprint == Detector(f"hf:{detr}", most=5).fingerprint


def test_a_detector_sees_the_picture_in_its_own_shape(detr: Path, tmp_path: Path) -> None:
    """Whole and at most 1,333 pixels long, neighbours of one size together; the square only where no more is known."""
    rng = np.random.default_rng(0)
    pictures = {"wide": (90, 30), "also": (90, 30), "tall": (20, 60), "huge": (2000, 500)}
    for name, (width, height) in pictures.items():
        cells = rng.integers(0, 256, (max(1, height // 10), width // 10, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    origins = [Origin(f"{tmp_path}/{name}.png", *size) for name, size in pictures.items()]
    origins += [
        Origin("", 90, 30, (tmp_path / "wide.png").read_bytes()),
        Origin(f"{tmp_path}/gone.png", 90, 30),
        Origin("", 90, 30),
    ]
    detector = Detector(f"hf:{detr}", device="cpu", most=5)
    seen: list[np.ndarray] = []
    detect = detector._detect
    detector._detect = lambda pixels: seen.append(pixels) or detect(pixels)  # type: ignore[misc, func-returns-value]
    squares = np.full((len(origins), 48, 48, 3), 7, np.uint8)
    found = detector.find(squares, origins)
    shapes = [batch.shape for batch in seen]
    assert shapes == [(2, 30, 90, 3), (1, 60, 20, 3), (1, 333, 1333, 3), (1, 30, 90, 3), (2, 48, 48, 3)]
    assert np.abs(seen[0][0].astype(int) - np.asarray(Image.open(tmp_path / "wide.png"))).mean() < 4
    assert abs(seen[2][0].astype(int)[::40, ::40].mean() - np.asarray(Image.open(tmp_path / "huge.png")).mean()) < 4
    np.testing.assert_array_equal(found[0], found[4])
    assert all(boxes is not None and boxes.shape == (5, 4) for boxes in found)


def test_a_detector_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    name = "ssdlite320_mobilenet_v3_large"
    model = get_model(name, weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    detector = Detector(f"torchvision:{name}={tmp_path}/w.pth", device="cpu", most=7)
    found = detector.find(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), None)
    assert found[0] is not None and found[0].shape == (7, 4)
    assert ((found[0] >= 0) & (found[0] <= 1)).all() and (found[0][:, 2:] >= found[0][:, :2]).all()
    before = detector.fingerprint
    model.head.classification_head.module_list[0][1].bias.data.add_(1)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert Detector(detector.name, most=7).fingerprint != before
    with pytest.raises(UsageError, match=r"no detector 'resnet18': it has fasterrcnn"):
        Detector("torchvision:resnet18", device="cpu").find(np.zeros((1, 8, 8, 3), np.uint8), None)
    with pytest.raises(UsageError, match="No such file"):
        Detector("torchvision:ssd300_vgg16=nowhere.pth")
    with pytest.raises(UsageError, match="not of the form ORG/NAME"):
        Detector("hf:nowhere")


def test_boxes_and_detectors_where_an_index_is_built(
    detr: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_here: Callable[..., Ended],
) -> None:
    """The index remembers its regions: queries and later builds use them, other regions are refused."""
    from brivl_search.index import IndexReader

    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "photos", 4)
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    lines = [{"image_id": f"elsewhere/{p.name}", "bbox": [[10 + i, 8, 60, 70]]} for i, p in enumerate(photos[:3])]
    write_boxes(tmp_path / "boxes.jsonl", *lines)
    base = ["build-index", "photos", "--index", "i", "--encoder", str(tiny_checkpoint), "--workers", "0"]
    code, _, err = run_here(*base, "--boxes", "boxes.jsonl")
    assert code == 0, err
    assert f"1 new images are not in {tmp_path}/boxes.jsonl: the fixed grid served" in err
    with IndexReader.open(tmp_path / "i") as reader:
        name = reader.info.encoder.name
    assert name == f"{tiny_checkpoint.resolve()}+boxes={tmp_path}/boxes.jsonl"
    for photo in (photos[0], photos[3]):  # the query's regions are the index's, so a photo finds itself exactly
        found = run_here(
            "query", "--image", str(photo), "--target", "images", "--index", "i", "-k", "1", "--format", "jsonl"
        )
        hit = json.loads(found.out.splitlines()[0])
        assert Path(hit["path"]).name == photo.name and hit["score"] > 0.999, found
    code, _, err = run_here("build-index", "photos", "--index", "i", "--workers", "0")
    assert code == 0 and "4 unchanged" in err.replace(",", ""), err
    code, _, err = run_here(*base, "--detector", f"hf:{detr}")
    assert code == 3 and "Traceback" not in err, err
    code, _, err = run_here(*base, "--boxes", "boxes.jsonl", "--detector", f"hf:{detr}")
    assert code == 2 and "exclude each other" in err
    code, _, err = run_here(*base[:2], "--index", "d", *base[4:], "--detector", f"hf:{detr}")
    assert code == 0, err
    with IndexReader.open(tmp_path / "d") as reader:
        assert reader.info.encoder.name.endswith(f"+detector=hf:{detr.resolve()}")
    found = run_here(
        "query", "--image", str(photos[1]), "--target", "images", "--index", "d", "-k", "1", "--format", "jsonl"
    )
    hit = json.loads(found.out.splitlines()[0])
    assert Path(hit["path"]).name == photos[1].name and hit["score"] > 0.999
