"""The text tower in NumPy, for a query from the shell: it answers before torch would have been imported.

It uses the same weights and the same computation as `text_tower.TextTower`, in float32. Texts are encoded one at a
time, so there is no padding and no mask. Torch is the reference: `tests/encoders/brivl/test_numpy_text.py` compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.brivl.checkpoint import WEIGHTS
from brivl_search.encoders.brivl.config import TextTowerConfig
from brivl_search.encoders.brivl.weights import SCALE, names_of, scales_of
from brivl_search.errors import EncoderError

Array = NDArray[np.float32]
MOST_TOKENS = 256  # of a call; beyond that torch is worth its import
_DEFAULTS = {"hidden_act": "gelu", "position_embedding_type": "absolute", "layer_norm_eps": 1e-12, "is_decoder": False}


def supports(config: TextTowerConfig) -> bool:
    """Whether the backbone is a plain BERT with GELU; this module knows no other."""
    settings = {**_DEFAULTS, **config.backbone}
    return (
        settings.get("model_type", "bert") == "bert"
        and settings["hidden_act"] == "gelu"
        and settings["position_embedding_type"] == "absolute"
        and not settings["is_decoder"]
    )


class NumpyTextTower:
    """The text tower of a checkpoint folder. Reading brivl-mini's weights takes about 10 ms.

    Raises:
        EncoderError: the file is damaged, or a tensor is missing or does not fit.
    """

    def __init__(self, folder: Path, config: TextTowerConfig) -> None:
        from safetensors import SafetensorError, safe_open

        self._settings: dict[str, Any] = {**_DEFAULTS, "num_hidden_layers": 12, "num_attention_heads": 12}
        self._settings |= config.backbone
        self._head = config.head
        self._padded_to = config.max_length if config.padding == "seen" else 0
        self._kept: dict[str, Array] | None = None
        self._weights: dict[str, NDArray[Any]] = {}
        self._scales: dict[str, Array] = {}  # of the weights kept in int8
        try:
            with safe_open(str(folder / WEIGHTS), framework="np") as file:
                for name in names_of(file):
                    if name.startswith("text."):
                        self._weights[name[5:]] = file.get_tensor(name)
                for name in scales_of(file):
                    if name.startswith("text."):
                        self._scales[name[5:]] = file.get_tensor(name + SCALE)
        except (SafetensorError, OSError) as error:
            raise EncoderError(f"{folder / WEIGHTS} cannot be read: {error}") from None
        self._where = folder / WEIGHTS
        if not self._weights:
            raise EncoderError(f"{folder} holds no text tower: convert the checkpoint again with both towers")

    def encode(self, ids: Sequence[Sequence[int]]) -> Array:
        """Token ids of n texts → unit vectors float32 (n, dim)."""
        tower = copy(self)  # what a call keeps is its own
        tower._kept = {} if len(ids) > 1 else None
        try:
            return np.stack([tower._one(np.asarray(row)) for row in ids])
        except (KeyError, ValueError, IndexError) as error:
            raise EncoderError(f"{self._where} does not fit its config.json: {error}") from None

    def _one(self, ids: NDArray[Any]) -> Array:
        count = len(ids)
        pad = int(self._settings.get("pad_token_id") or 0)
        ids = np.pad(ids, (0, max(self._padded_to - count, 0)), constant_values=pad)
        place = "backbone.embeddings."
        words, positions, kinds = (
            self._float(f"{place}{name}_embeddings.weight", rows)
            for name, rows in (("word", ids), ("position", slice(len(ids))), ("token_type", slice(1)))
        )
        tokens = words + positions + kinds[0]
        eps = float(self._settings["layer_norm_eps"])
        tokens = self._norm(place + "LayerNorm", tokens, eps)
        for number in range(int(self._settings["num_hidden_layers"])):
            tokens = self._bert_layer(f"backbone.encoder.layer.{number}.", tokens, eps)
        tokens = tokens[:count]
        if self._head.normalize_tokens:
            tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
        for number in range(self._head.layers):
            tokens = self._head_layer(f"head.attention.layers.{number}.", tokens)
        hidden = np.maximum(self._linear("head.fc1", tokens.mean(0)), 0)
        vector = self._linear("head.fc2", hidden)
        unit: Array = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
        return unit

    def _bert_layer(self, place: str, x: Array, eps: float) -> Array:
        query, key, value = (self._linear(f"{place}attention.self.{name}", x) for name in ("query", "key", "value"))
        mixed = _attention(query, key, value, int(self._settings["num_attention_heads"]))
        x = self._norm(
            f"{place}attention.output.LayerNorm", x + self._linear(f"{place}attention.output.dense", mixed), eps
        )
        inner = _gelu(self._linear(f"{place}intermediate.dense", x))
        return self._norm(f"{place}output.LayerNorm", x + self._linear(f"{place}output.dense", inner), eps)

    def _head_layer(self, place: str, x: Array) -> Array:
        """`nn.TransformerEncoderLayer`, norm last, ReLU."""
        weight, bias = (self._float(f"{place}self_attn.in_proj_{name}") for name in ("weight", "bias"))
        query, key, value = np.split(x @ weight.T + bias, 3, axis=1)
        mixed = self._linear(f"{place}self_attn.out_proj", _attention(query, key, value, self._head.heads))
        x = self._norm(f"{place}norm1", x + mixed, 1e-5)
        inner = np.maximum(self._linear(f"{place}linear1", x), 0)
        return self._norm(f"{place}norm2", x + self._linear(f"{place}linear2", inner), 1e-5)

    def _float(self, name: str, rows: Any = None) -> Array:
        """A tensor, or some rows of it, in float32; whole ones are kept until all texts of a call are done."""
        if rows is None and self._kept is not None and name in self._kept:
            return self._kept[name]
        some = slice(None) if rows is None else rows
        values: Array = self._weights[name][some].astype(np.float32)
        if name in self._scales:
            values = values * self._scales[name][some]
        if rows is None and self._kept is not None:
            self._kept[name] = values
        return values

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self._float(f"{name}.weight").T + self._float(f"{name}.bias")

    def _norm(self, name: str, x: Array, eps: float) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + eps)
        normed: Array = centred / scale * self._float(f"{name}.weight") + self._float(f"{name}.bias")
        return normed


def _attention(query: Array, key: Array, value: Array, heads: int) -> Array:
    """Scaled dot-product attention with `heads` heads: query, key and value (T, D) → (T, D)."""
    tokens, width = query.shape
    q, k, v = (x.reshape(tokens, heads, width // heads).transpose(1, 0, 2) for x in (query, key, value))
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(width // heads))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Array = (weights / weights.sum(-1, keepdims=True)) @ v
    return mixed.transpose(1, 0, 2).reshape(tokens, width)


def _gelu(x: Array) -> Array:
    """x · Φ(x), with erf by Abramowitz and Stegun 7.1.26. The error is below 1.5e-7, about float32's own rounding."""
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    return (0.5 * x * (1 + erf)).astype(np.float32)
