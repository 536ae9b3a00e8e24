"""BriVL's published code as the tests know it: its names of tensors, and a forward pass written from its description.

`Reference` shares nothing with `brivl_search` but libraries: it loops over pictures and boxes, keeps the convolution
before the average, runs its attention sequence first and shows BERT its padding. `write_official` saves a tiny one, and
the fixture `tiny` is one for a whole module: import `tiny_fixture`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from tests.support.tiny import write_vocab

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXTS = ["a red dog", "一只在草地上的狗", "the green circle on the blue square", "狗"]


def tiny_official() -> dict[str, Any]:
    """A config.json of the published kind: every quirk on, 3 × 3 cells."""
    head = {"layers": 2, "heads": 2, "feedforward": 32, "dropout": 0.1}
    return {
        "name": "tiny-official",
        "dim": 24,
        "image": {
            "backbones": [{"name": "mobilenetv2_035"}],
            "grids": [2, 1],
            "width": 32,
            "roi": "brivl",
            "max_boxes": 5,
            "pixels": {"size": 96, "resize": "squash", "interpolation": "bilinear", "antialias": False},
            "head": head,
        },
        "text": {
            "max_length": 20,
            "padding": "seen",
            "head": head,
            "backbone": {
                "model_type": "bert",
                "vocab_size": 120,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 20,
            },
        },
    }


class Reference(nn.Module):
    """Both towers of the published code in the sizes of `config`; on the meta device only names and shapes."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        image, text, dim = config["image"], config["text"], config["dim"]
        self.cnn = timm.create_model(image["backbones"][0]["name"], pretrained=False, num_classes=1000)
        channels = self.cnn.num_features
        width = image.get("width") or channels
        self.bert = BertModel(BertConfig(**{k: v for k, v in text["backbone"].items() if k != "model_type"}))
        self.img_att, self.text_att = (
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(d, head["heads"], head["feedforward"], head["dropout"]),
                head["layers"],
                enable_nested_tensor=False,
            )
            for d, head in ((width, image["head"]), (self.bert.config.hidden_size, text["head"]))
        )
        self.conv = nn.Conv2d(channels, width, 1)
        self.img_fc1, self.img_fc2 = nn.Linear(width, dim), nn.Linear(dim, dim)
        self.text_fc1, self.text_fc2 = nn.Linear(self.bert.config.hidden_size, dim), nn.Linear(dim, dim)

    def official_state(self, *, momentum: bool) -> dict[str, Tensor]:
        """`learnable` of a checkpoint: its names, in the order of its towers."""
        image = {"backbone": self.cnn, "learnable.imgFC.fc1": self.img_fc1, "learnable.imgFC.fc2": self.img_fc2}
        image |= {"learnable.imgAtt": self.img_att, "learnable.max_pool.0": self.conv}
        text = {
            "backbone.bert": self.bert,
            "learnable.textFC.fc1": self.text_fc1,
            "learnable.textFC.fc2": self.text_fc2,
        }
        text |= {"learnable.textAtt": self.text_att}
        positions = torch.arange(self.bert.config.max_position_embeddings).unsqueeze(0)
        state = {}
        for suffix in ("", "_mom") if momentum else ("",):
            for tower, modules in (("imgencoder", image), ("textencoder", text)):
                for place, module in modules.items():
                    for name, tensor in module.state_dict().items():
                        state[f"{tower}{suffix}.{place}.{name}"] = tensor
            state[f"textencoder{suffix}.backbone.bert.embeddings.position_ids"] = positions
        return state

    def settle(self) -> Reference:
        """BatchNorm statistics of noise, so that a random network tells pictures apart; then inference."""
        for module in self.cnn.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            self.cnn.train().forward_features(torch.randn(8, 3, 96, 96))
        return self.eval()

    def pixels(self, data: bytes) -> Tensor:
        """(3, S, S): ToTensor, Resize of the tensor without antialiasing, Normalize."""
        size = self.config["image"]["pixels"]["size"]
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float32) / 255
        tensor = torch.from_numpy(picture).permute(2, 0, 1)
        resized = F.interpolate(tensor[None], (size, size), mode="bilinear", align_corners=False, antialias=False)[0]
        return (resized - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    @torch.no_grad()
    def images(self, pixels: list[Tensor], boxes: list[list[list[float]]]) -> np.ndarray:
        """(n, dim): `boxes` in pixels of the square, best first; the whole picture is put last, short lists padded."""
        most = self.config["image"]["max_boxes"]
        size = float(self.config["image"]["pixels"]["size"])
        lists = [[*some[:most], [0, 0, size, size]] for some in boxes]
        longest = max(map(len, lists))
        features = self.cnn.forward_features(torch.stack(pixels))
        height, width = features.shape[2:]
        rows, mask = [], torch.ones(len(lists), longest, dtype=torch.bool)
        for i, some in enumerate(lists):
            mask[i, len(some) :] = False
            tokens = []
            for box in [*some, *[[0, 0, 0, 0]] * (longest - len(some))]:
                x1, y1, x2, y2 = (value / (size / cells) for value, cells in zip(box, (width, height) * 2, strict=True))
                theta = torch.tensor(
                    [
                        [(x2 - x1) / (width - 1), 0, (x1 + x2 - width + 1) / (width - 1)],
                        [0, (y2 - y1) / (height - 1), (y1 + y2 - height + 1) / (height - 1)],
                    ]
                )
                grid = F.affine_grid(theta[None], [1, features.shape[1], 4, 4], align_corners=False)
                sampled = F.grid_sample(features[i : i + 1], grid, align_corners=False)
                tokens.append(F.avg_pool2d(self.conv(sampled), 4, stride=1).flatten())
            rows.append(torch.stack(tokens))
        return self._end(torch.stack(rows), mask, self.img_att, self.img_fc1, self.img_fc2)

    @torch.no_grad()
    def texts(self, ids: list[list[int]]) -> np.ndarray:
        """(n, dim): ids padded to the full length, which BERT is not told."""
        length = self.config["text"]["max_length"]
        padded = torch.tensor([[*row, *[0] * (length - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids]).bool()
        tokens = self.bert(padded).last_hidden_state
        return self._end(tokens, mask, self.text_att, self.text_fc1, self.text_fc2)

    def _end(self, tokens: Tensor, mask: Tensor, attention: nn.Module, fc1: nn.Module, fc2: nn.Module) -> np.ndarray:
        tokens = F.normalize(tokens, dim=-1)
        tokens = attention(tokens.transpose(0, 1), src_key_padding_mask=~mask).transpose(0, 1)
        pooled = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(fc2(F.relu(fc1(pooled))), dim=-1).numpy()


def write_official(path: Path, *, seed: int = 0, only: str = "", **save: Any) -> Reference:
    """Saves a tiny checkpoint with its config and vocabulary beside it; `only`: the towers whose names begin so."""
    torch.manual_seed(seed)
    reference = Reference(tiny_official()).settle()
    state = reference.official_state(momentum=not only)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, tensor in state.items():
        if "_mom." in name and tensor.is_floating_point():
            state[name] = tensor * 0.5  # another model than the online towers
    torch.save({"learnable": {n: t for n, t in state.items() if n.startswith(only)}, "epoch": 3}, path, **save)
    path.with_suffix(".json").write_text(json.dumps(tiny_official()), encoding="utf-8")
    write_vocab(path.parent)
    return reference


def photo(seed: int, size: tuple[int, int] = (300, 180)) -> bytes:
    """A picture with edges everywhere, so that resizing without antialiasing shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of any number."""
    return float(np.abs(a - b).max())


@pytest.fixture(scope="module", name="tiny")
def tiny_fixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    path = tmp_path_factory.mktemp("official") / "BriVL.pth"
    return path, write_official(path)
