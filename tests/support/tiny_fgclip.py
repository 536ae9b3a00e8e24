"""Small random checkpoints of FG-CLIP 2 in the layout of the published ones, and what such a model computes, plainly.

The layout is that of qihoo360/fg-clip2-base: config.json of `model_type` fgclip2 with its `auto_map`, the program code
beside it, one model.safetensors with both towers and heads that are not for search.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.tiny_hf import _tokenizer, edit_json

WIDTH, INNER, HEADS, LAYERS, PATCH, GRID = 32, 64, 2, 2, 8, 4
SHORT, LONG, KEPT = 16, 40, 6
CODE = "import pathlib\npathlib.Path(__file__).with_name('it-ran').touch()\n"


def make_fgclip(folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint; the files of the program code in it leave a mark if they ever run."""
    import transformers
    from safetensors.torch import save_file
    from tokenizers import processors

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, about = _tokenizer("siglip2", folder)
    end = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.backend_tokenizer.post_processor = end
    tokenizer.save_pretrained(folder)
    edit_json(folder / "tokenizer_config.json", padding_side="right")
    transformers.Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=256).save_pretrained(folder)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
    }
    config = {
        "architectures": ["Fgclip2Model"],
        "auto_map": {
            "AutoConfig": "configuration_fgclip2.Fgclip2Config",
            "AutoModelForCausalLM": "modeling_fgclip2.Fgclip2Model",
        },
        "model_type": "fgclip2",
        "text_config": {
            **sizes,
            "model_type": "fgclip2_text_model",
            "vocab_size": about["vocab_size"],
            "max_position_embeddings": SHORT,
            "projection_size": WIDTH,
            "keep_len": KEPT,
            "longtext_len": LONG,
        },
        "vision_config": {**sizes, "model_type": "fgclip2_vision_model", "num_patches": GRID**2, "patch_size": PATCH},
        "torch_dtype": "float32",
        "transformers_version": "4.57.0",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("configuration_fgclip2.py", "modeling_fgclip2.py"):
        (folder / name).write_text(CODE, encoding="utf-8")
    torch.manual_seed(seed)
    save_file(_weights(about["vocab_size"]), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(vocabulary: int) -> dict[str, Tensor]:
    text, vision = "text_model", "vision_model"
    found = {
        f"{text}.embeddings.token_embedding.weight": torch.randn(vocabulary, WIDTH) * 2,
        f"{text}.embeddings.position_embedding.weight": torch.randn(SHORT, WIDTH),
        f"{text}.embeddings.position_embedding_ori.weight": torch.randn(LONG, WIDTH),
        f"{text}.embeddings.position_embedding_res.weight": torch.randn(LONG, WIDTH),
        f"{vision}.embeddings.position_embedding.weight": torch.randn(GRID**2, WIDTH),
        "logit_scale": torch.zeros(1),
        "logit_bias": torch.zeros(1),
    }
    lines = {
        f"{text}.head": (WIDTH, WIDTH),
        "longtext_head": (WIDTH, WIDTH),
        "boxtext_head": (WIDTH, WIDTH),
        f"{vision}.embeddings.patch_embedding": (WIDTH, 3 * PATCH**2),
    }
    norms = [f"{text}.final_layer_norm", f"{vision}.post_layernorm"]
    for tower in (text, vision):
        for layer in (f"{tower}.encoder.layers.{at}" for at in range(LAYERS)):
            lines |= {f"{layer}.self_attn.{one}_proj": (WIDTH, WIDTH) for one in ("q", "k", "v", "out")}
            lines |= {f"{layer}.mlp.fc1": (INNER, WIDTH), f"{layer}.mlp.fc2": (WIDTH, INNER)}
            norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    for head in (f"{vision}.head", "dense_feature_head"):
        found[f"{head}.probe"] = torch.randn(1, 1, WIDTH)
        found[f"{head}.attention.in_proj_weight"] = torch.randn(3 * WIDTH, WIDTH) * 0.3
        found[f"{head}.attention.in_proj_bias"] = torch.randn(3 * WIDTH) * 0.1
        lines |= {f"{head}.attention.out_proj": (WIDTH, WIDTH)}
        lines |= {f"{head}.mlp.fc1": (INNER, WIDTH), f"{head}.mlp.fc2": (WIDTH, INNER)}
        norms.append(f"{head}.layernorm")
    for name, shape in lines.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = torch.randn(shape) * 0.3, torch.randn(shape[0]) * 0.1
    for name in norms:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + torch.randn(WIDTH) * 0.1, torch.randn(WIDTH) * 0.1
    return found


class Plain:
    """The model by its definition: one text or one picture at a time, nothing padded but what the model sees."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.weights = load_file(folder / "model.safetensors")

    def line(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        apart = x - x.mean(-1, keepdim=True)
        flat = apart / (apart.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return flat * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size, mixed = WIDTH // HEADS, []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            mixed.append((q[:, part] @ k[:, part].T / size**0.5).softmax(-1) @ v[:, part])
        return torch.cat(mixed, -1)

    def feed(self, name: str, x: Tensor) -> Tensor:
        return self.line(f"{name}.fc2", F.gelu(self.line(f"{name}.fc1", x), approximate="tanh"))

    def encode(self, tower: str, x: Tensor) -> Tensor:
        for at in range(LAYERS):
            layer = f"{tower}.encoder.layers.{at}"
            seen = self.norm(f"{layer}.layer_norm1", x)
            parts = [self.line(f"{layer}.self_attn.{one}_proj", seen) for one in "qkv"]
            x = x + self.line(f"{layer}.self_attn.out_proj", self.attend(*parts))
            x = x + self.feed(f"{layer}.mlp", self.norm(f"{layer}.layer_norm2", x))
        return x

    def text(self, ids: list[int], long: bool) -> Tensor:
        """Token ids with the end mark and without padding (0) → (D,), unit length."""
        length, name = LONG if long else SHORT, "text_model.embeddings"
        x = self.weights[f"{name}.token_embedding.weight"][torch.tensor(ids + [0] * (length - len(ids)))]
        if long:
            table = self.weights[f"{name}.position_embedding_res.weight"].clone()
            table[:KEPT] = self.weights[f"{name}.position_embedding_ori.weight"][:KEPT]
        else:
            table = self.weights[f"{name}.position_embedding.weight"]
        last = self.norm("text_model.final_layer_norm", self.encode("text_model", x + table))[-1]
        return F.normalize(self.line("longtext_head" if long else "text_model.head", last), dim=-1)

    def picture(self, pixels: Any, most: int) -> Tensor:
        """A PIL picture → (D,), unit length, cut into at most `most` patches by transformers' own processor."""
        import transformers

        cut = transformers.Siglip2ImageProcessor(patch_size=PATCH)(
            images=pixels, max_num_patches=most, return_tensors="pt"
        )
        rows, columns = cut["spatial_shapes"][0].tolist()
        tiles = cut["pixel_values"][0][: rows * columns]
        table = self.weights["vision_model.embeddings.position_embedding.weight"].T.reshape(1, WIDTH, GRID, GRID)
        places = F.interpolate(table, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        x = self.line("vision_model.embeddings.patch_embedding", tiles) + places.reshape(WIDTH, -1).T
        x = self.norm("vision_model.post_layernorm", self.encode("vision_model", x))
        head = "vision_model.head"
        weight, bias = (self.weights[f"{head}.attention.in_proj_{one}"].chunk(3) for one in ("weight", "bias"))
        given = (self.weights[f"{head}.probe"][0], x, x)
        q, k, v = (one @ w.T + b for one, w, b in zip(given, weight, bias, strict=True))
        state = self.line(f"{head}.attention.out_proj", self.attend(q, k, v))[0]
        return F.normalize(state + self.feed(f"{head}.mlp", self.norm(f"{head}.layernorm", state)), dim=-1)


def patches_of(width: int, height: int) -> int:
    """How many patches the README's retrieval example gives a picture, with our patches' side for 16."""
    whole = (width // PATCH) * (height // PATCH)
    if whole > 784:
        return 1024
    if whole > 576:
        return 784
    if whole > 256:
        return 576
    return 256 if whole > 128 else 128
