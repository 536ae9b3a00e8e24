"""A BriVL model of a few thousand parameters with random weights: the real code paths in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from brivl_search.encoders.brivl.checkpoint import save_checkpoint
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer

WORDS = (
    "a the red green blue circle square cross on in with photo of dog grass "
    "一 只 在 草 地 上 的 狗 红 绿 蓝 色 圆 方 块 十 字 形 图 片"
)


def write_vocab(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *[f"##{c}" for c in letters]]
    tokens += [word for word in WORDS.split() if word not in tokens]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


def tiny_model(**changes: Any) -> dict[str, Any]:
    head = {"layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.0}
    model: dict[str, Any] = {
        "name": "tiny",
        "dim": 32,
        "image": {
            "backbones": [{"name": "mobilenetv2_035"}],
            "grids": [2, 1],
            "width": 32,
            "pixels": {"size": 64, "resize": "squash", "interpolation": "bilinear"},
            "head": head,
        },
        "text": {
            "max_length": 16,
            "head": head,
            "backbone": {
                "model_type": "bert",
                "vocab_size": 120,
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 16,
            },
        },
    }
    return {**model, **changes}


def make_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    config = ModelConfig.from_dict(tiny_model(**changes))
    tokenizer = TextTokenizer(write_vocab(folder), config.text.max_length)
    save_checkpoint(folder, config, ImageTower(config.image, config.dim), TextTower(config.text, config.dim), tokenizer)
    (folder / "vocab.txt").unlink()
    return folder


def write_boxes(path: Path, *records: object) -> Path:
    """A file of boxes: JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
