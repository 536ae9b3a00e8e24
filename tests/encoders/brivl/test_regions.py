"""Boxes: batched pooling against the published loop, files of boxes, detectors, and how they reach an index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.boxes import BoxFile, box_batch, grid_shares
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.detector import Detector
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.regions import box_weights, grid_boxes
from brivl_search.errors import CorpusError, EncoderError, UsageError
from tests.support.pictures import write_corpus
from tests.support.site import Ended
from tests.support.tiny import tiny_model


def loop(features: Tensor, boxes: Tensor) -> Tensor:
    """The published sampling: picture by picture, box by box; features (B, C, H, W), boxes (B, R, 4) in cells."""
    _, channels, height, width = features.shape
    out = torch.empty(*boxes.shape[:2], channels)
    for i, some in enumerate(boxes.tolist()):
        for j, (x1, y1, x2, y2) in enumerate(some):
            theta = torch.tensor(
                [
                    [(x2 - x1) / (width - 1), 0, (x1 + x2 - width + 1) / (width - 1)],
                    [0, (y2 - y1) / (height - 1), (y1 + y2 - height + 1) / (height - 1)],
                ]
            )
            grid = F.affine_grid(theta[None], [1, channels, 4, 4], align_corners=False)
            out[i, j] = F.grid_sample(features[i : i + 1], grid, align_corners=False).mean((2, 3))[0]
    return out


def random_boxes(batch: int, count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Among them boxes of one cell, of all, of nothing, and at every border."""
    corners = torch.rand(batch, count, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(2).values
    boxes = corners.flatten(2) * torch.tensor([width, height, width, height])
    boxes[:, 0] = torch.tensor([0.0, 0.0, width, height])
    boxes[:, 1] = 0
    boxes[:, 2] = torch.tensor([width - 0.5, height - 0.5, width, height])
    return boxes


@pytest.mark.parametrize(("height", "width"), [(12, 12), (15, 15), (7, 9), (2, 3)])
def test_batched_pooling_is_the_loop(height: int, width: int) -> None:
    features = torch.randn(3, 5, height, width, generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(3, 37, height, width)
    pooled = box_weights(boxes, height, width) @ features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled, loop(features, boxes), atol=2e-5, rtol=1e-4)


def test_pooling_is_one_roi_align() -> None:
    """The convention "aligned" is torchvision's; "brivl" is it on stretched boxes over a map framed with zeros."""
    height, width = 7, 9
    features = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(2, 20, height, width)
    cells = features.flatten(2).transpose(1, 2)
    aligned = roi_align(features, list(boxes), (1, 1), sampling_ratio=4, aligned=True).view(2, 20, 5)
    torch.testing.assert_close(box_weights(boxes, height, width, "aligned") @ cells, aligned, atol=2e-5, rtol=1e-4)
    stretch = torch.tensor([width / (width - 1), height / (height - 1)] * 2)
    framed = roi_align(F.pad(features, (1, 1, 1, 1)), list(boxes * stretch + 1), (1, 1), sampling_ratio=4, aligned=True)
    torch.testing.assert_close(box_weights(boxes, height, width) @ cells, framed.view(2, 20, 5), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(aligned, framed.view(2, 20, 5), atol=1e-2)


def test_gradients_reach_the_features() -> None:
    features = torch.randn(2, 4, 6, 6, requires_grad=True)
    (box_weights(random_boxes(2, 5, 6, 6), 6, 6) @ features.flatten(2).transpose(1, 2)).sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0


def test_lists_are_cut_padded_and_end_with_the_whole_picture() -> None:
    many = np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4)
    boxes, mask = box_batch([many, many[:1], many[:0], None], [2, 1], 6)
    assert boxes.shape == (4, 7, 4) and mask.sum(1).tolist() == [7, 2, 1, 5]
    np.testing.assert_array_equal(boxes[0, :6], many[:6])
    for i, last in enumerate(mask.sum(1) - 1):
        assert boxes[i, last].tolist() == [0, 0, 1, 1] and not boxes[i, last + 1 :].any()
    np.testing.assert_array_equal(boxes[3, :5], grid_shares([2, 1]))
    np.testing.assert_allclose(grid_shares([6, 1]) * 12, grid_boxes([6, 1], 12, 12).numpy(), atol=1e-5)


def test_a_vector_does_not_depend_on_the_lists_beside_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lists = {"a": [[0, 0, 40, 40]], "b": [[0, 0, 40, 40]] + [[5, i, 60, 64] for i in range(9)]}
    write(tmp_path / "x.jsonl", *({"image_id": f"{n}.jpg", "bbox": b} for n, b in lists.items()))
    encoder = load_encoder(f"{tiny_checkpoint}+boxes={tmp_path}/x.jsonl", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    origins = [Origin(str(tmp_path / f"{n}.jpg"), 64, 64) for n in "ab"]
    both = encoder.encode_pictures(pixels, origins)
    np.testing.assert_allclose(both[0], encoder.encode_pictures(pixels[:1], origins[:1])[0], atol=1e-5)
    swapped = encoder.encode_pictures(pixels[:1], origins[1:])
    assert np.abs(swapped - both[:1]).max() > 1e-4  # boxes matter
    plain = load_encoder(str(tiny_checkpoint), device="cpu", precision="fp32")
    np.testing.assert_allclose(encoder.encode_images(pixels), plain.encode_images(pixels), atol=1e-5)  # the grid
    assert encoder.fingerprint != plain.fingerprint


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_pictures_are_found_by_path_then_by_a_name_that_is_unique(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.jsonl",
        {"image_id": "a/one.jpg", "bbox": [[0, 0, 5, 10], [10, 20, 30, 50]]},
        {"image_id": "b/one.jpg", "bbox": [[1, 1, 5, 5]]},
        {"image": "../data/imgs/two.jpg", "bbox": [[-3, 0, 400, 10]], "sentences": []},
        {"image_id": "three.jpg", "sentences": [["easy", "no boxes here"]]},
    )
    source = BoxFile(file)
    origins = [Origin(str(tmp_path / p), 100, 50) for p in ("a/one.jpg", "c/one.jpg", "two.jpg", "three.jpg", "x.jpg")]
    found = source.find(np.zeros((5, 8, 8, 3), np.uint8), origins)
    np.testing.assert_allclose(found[0], [[0, 0, 0.05, 0.2], [0.1, 0.4, 0.3, 1]])
    np.testing.assert_allclose(found[2], [[0, 0, 1, 0.2]])  # kept within the picture
    assert found[1] is found[3] is found[4] is None and source.without == 3
    member = Origin(f"{tmp_path}/photos.tar::two.jpg", 100, 50)
    np.testing.assert_array_equal(source.find(np.zeros((1, 8, 8, 3), np.uint8), [member])[0], found[2])
    assert source.find(np.zeros((2, 8, 8, 3), np.uint8), None) == [None, None] and source.without == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"bbox": []}', "line 2: no image_id"),
        ('{"image_id": "a.jpg", "bbox": [[1, 2, 3]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": [[9, 2, 3, 4]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": [[1, 2, 3, NaN]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": "all"}', "line 2: bbox must be a list of"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"image_id": "b.jpg", "bbox": []}\n' + line + "\n")
    with pytest.raises(CorpusError, match=words):
        BoxFile(tmp_path / "x.jsonl").find(np.zeros((1, 8, 8, 3), np.uint8), [Origin(str(tmp_path / "a.jpg"), 9, 9)])


def test_wrong_names_of_region_sources(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name, words in (
        (f"{tiny_checkpoint}+boxes={tmp_path}/none.jsonl", "No such file"),
        (f"{tiny_checkpoint}+boxes=", "say which file"),
        (f"{tiny_checkpoint}+detector=yolo", "no detector 'yolo': give hf:"),
        ("nonsense+boxes=x.jsonl", "boxes are for BriVL's encoders"),
    ):
        with pytest.raises(UsageError, match=words):
            load_encoder(name)


# -- detectors ---------------------------------------------------------------------------------------------------


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
    with pytest.raises(EncoderError, match="not of the form ORG/NAME"):
        Detector("hf:nowhere")


# -- from the command line ---------------------------------------------------------------------------------------


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
    write(tmp_path / "boxes.jsonl", *lines)
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
