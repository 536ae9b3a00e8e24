"""Models of open_clip with random weights, small by their config, in folders as open_clip saves them.

The fixture `models` is one of each: import `models_fixture`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from brivl_search.encoders import load_encoder
from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
from tests.support.tiny_hf import WORDS, _tokenizer

SIDE = 32
VIT: dict[str, Any] = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT: dict[str, Any] = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TINY_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}
LANGUAGES = ["eng_Latn", "zho_Hans", "zho_Hant", "jpn_Jpan"]

# Each with what sets it apart: another image tower, text tower, tokenizer, or preprocessing.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": ({"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True}, {}),
    "resnet": (
        {"vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": TEXT},
        {"interpolation": "bilinear"},
    ),
    "convnext": (
        {
            "vision_cfg": {
                "timm_model_name": "test_convnext",
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 64,
            },
            "text_cfg": TEXT,
        },
        {},
    ),
    "siglip": (
        {
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
                "image_size": 160,
            },
            "text_cfg": {
                **TEXT,
                "hf_tokenizer_name": "timm/some-siglip",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
                "act_kwargs": {"approximate": "tanh"},
            },
        },
        {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    ),
    "xlm_roberta": (
        {
            "vision_cfg": VIT,
            "text_cfg": {
                "hf_model_name": "xlm-roberta-base",
                "hf_tokenizer_name": "xlm-roberta-base",
                "hf_pooler_type": "mean_pooler",
                "context_length": 24,
            },
        },
        {},
    ),
    "nllb_siglip": (
        {
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
                "image_size": 160,
            },
            "text_cfg": {
                "hf_model_name": "facebook/nllb-200-distilled-600M",
                "hf_tokenizer_name": "facebook/nllb-200-distilled-600M",
                "hf_proj_type": "linear",
                "hf_pooler_type": "cls_pooler",
                "context_length": 24,
            },
        },
        {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    ),
    "coca": (
        {
            "custom_text": True,
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**TEXT, "attn_pooler_heads": 4},
        },
        {},
    ),
    "mobileclip": (
        {
            "custom_text": True,
            "vision_cfg": {
                "timm_model_name": "fastvit_t8",
                "timm_pool": "avg",
                "timm_proj": None,
                "image_size": 64,
            },
            "text_cfg": {**TEXT, "no_causal_mask": True},
        },
        {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"},
    ),
    "clipa": (
        {
            "vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
            "text_cfg": {
                **TEXT,
                "hf_tokenizer_name": "bert-base-uncased",
                "tokenizer_kwargs": {"strip_sep_token": True},
                "pool_type": "last",
                "no_causal_mask": True,
            },
        },
        {"mean": 0.5, "std": 0.25, "resize_mode": "squash", "interpolation": "bilinear"},
    ),
}
_DIMS = {"siglip": 64, "nllb_siglip": 64}


def make_open_clip(folder: Path, kind: str, seed: int = 0) -> Path:
    """A model in the layout of `open_clip.push_to_hf_hub.save_for_hf`, and the config of its text tower."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model, pictures = KINDS[kind]
    model = {"embed_dim": _DIMS.get(kind, 24), **json.loads(json.dumps(model))}
    _write_texts(folder, kind, model["text_cfg"])
    config = {"model_cfg": model, "preprocess_cfg": pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    built = open_clip.create_model(f"local-dir:{_with_own_tower(folder, config)}", pretrained_text=False)
    with torch.no_grad():  # at their own small start, all random towers give nearly the same vector
        for name, value in built.named_parameters():
            if value.dim() > 1:
                value.normal_(
                    0, 1.0 if "embedding" in name or "embed_tokens" in name else 1.5 / value[0].numel() ** 0.5
                )
    save_file({k: v.contiguous() for k, v in built.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def _with_own_tower(folder: Path, config: dict[str, Any]) -> Path:
    """A folder beside `folder` in which open_clip itself finds the text tower's config without a hub."""
    if "hf_model_name" not in config["model_cfg"]["text_cfg"]:
        return folder
    changed = json.loads(json.dumps(config))
    changed["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder)
    beside = folder.parent / f"{folder.name}-for-open-clip"
    beside.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (beside / path.name).write_bytes(path.read_bytes())
    (beside / "open_clip_config.json").write_text(json.dumps(changed), encoding="utf-8")
    return beside


def for_open_clip(folder: Path) -> Path:
    """A folder that open_clip itself loads with the same vectors."""
    return _with_own_tower(folder, json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8")))


def _write_texts(folder: Path, kind: str, text: dict[str, Any]) -> None:
    """The tokenizer, and the config of a text tower of transformers."""
    import transformers

    if kind == "nllb_siglip":
        tokenizer, size = _nllb()
        tokenizer.save_pretrained(folder)
        transformers.M2M100Config(
            vocab_size=size,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=40,
        ).save_pretrained(folder)
    elif kind in ("siglip", "xlm_roberta", "clipa"):
        like = {"siglip": "siglip2", "xlm_roberta": "metaclip_2", "clipa": "chinese_clip"}[kind]
        tokenizer, settings = _tokenizer(like, folder)
        tokenizer.save_pretrained(folder)
        if kind == "xlm_roberta":
            size = settings["vocab_size"]
            transformers.XLMRobertaConfig(vocab_size=size, **TINY_BERT).save_pretrained(folder)
        else:
            text["vocab_size"] = settings["vocab_size"]


def _nllb() -> tuple[Any, int]:
    import transformers

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [word for word in WORDS if len(word) == 1 and word not in pieces]
    vocab = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = transformers.NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=LANGUAGES)
    return tokenizer, len(tokenizer)


@pytest.fixture(scope="session", name="models")
def models_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("open_clip")
    return {kind: make_open_clip(folder / kind, kind) for kind in KINDS}


def load(folder: Path, **options: Any) -> OpenClipEncoder:
    encoder = load_encoder(f"open_clip:{folder}", device="cpu", precision="fp32", **options)
    assert isinstance(encoder, OpenClipEncoder)
    return encoder
