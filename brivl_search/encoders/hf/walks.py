"""The text tower of FG-CLIP 2: SigLIP 2's, with a second table of positions and a second head for long texts.

Written from the paper (arXiv 2510.10921) and the layout of the published weights. A short text of at most 64 tokens is
read as SigLIP 2 reads it. A long one, filled up to 196 tokens, gets

    position i:  position_embedding_ori[i] for i < keep_len, else position_embedding_res[i]
    vector:      longtext_head(state of the last token) instead of text_model.head(the same)

All tokens see each other, and the padding too. The walk for boxes is not needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brivl_search.encoders.hf.family import FAMILIES, KEPT
from brivl_search.encoders.hf.files import read_json


class WalkEmbeddings(nn.Module):
    """Token ids int64 (B, T) → states (B, T, D); T tells which walk: it is the full length of the one or the other."""

    def __init__(self, vocabulary: int, width: int, short: int, long: int, kept: int) -> None:
        super().__init__()
        self.short, self.long, self.kept = short, long, kept
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(short, width)
        self.position_embedding_ori = nn.Embedding(long, width)
        self.position_embedding_res = nn.Embedding(long, width)

    def forward(self, ids: Tensor) -> Tensor:
        """As the class says. Only tensors decide, so that a trace (ONNX) holds both walks."""
        first, second = self.position_embedding_ori.weight[: self.kept], self.position_embedding_res.weight[self.kept :]
        table = torch.cat([self.position_embedding.weight, first, second])
        at = torch.ones_like(ids[0]).cumsum(0) - 1 + self.short * self.is_long(ids)
        states: Tensor = self.token_embedding(ids) + nn.functional.embedding(at, table)
        return states

    def is_long(self, ids: Tensor) -> Tensor:
        """bool (): whether rows of this length are long texts."""
        return torch.ones_like(ids[0]).sum() > self.short


def with_walks(base: Any, config: Any) -> None:
    """Gives a `Siglip2Model` what FG-CLIP 2 has beside it; its weights are read later."""
    text = config.text_config
    lengths = text.max_position_embeddings, text.longtext_len, text.keep_len
    base.text_model.embeddings = WalkEmbeddings(text.vocab_size, text.hidden_size, *lengths)
    base.longtext_head = nn.Linear(text.hidden_size, text.hidden_size)


def text_features(self: Any, input_ids: Tensor) -> Tensor:
    """`get_text_features` of such a model: int64 (B, T) → (B, D), not of unit length."""
    text = self.text_model
    states = text.encoder(inputs_embeds=text.embeddings(input_ids)).last_hidden_state
    last = text.final_layer_norm(states)[:, -1]
    return torch.where(text.embeddings.is_long(input_ids), self.longtext_head(last), text.head(last))


def siglip2_config(folder: Path) -> Any:
    """The config of FG-CLIP 2 in `folder` as a `Siglip2Config`. Program code that it names is left out.

    Raises:
        EncoderError: config.json cannot be read.
    """
    import transformers

    config, family = read_json(folder / "config.json"), FAMILIES["fgclip2"]
    parts = {}
    for name in ("text_config", "vision_config"):
        given = config.get(name)
        dropped = {"model_type", "auto_map", "architectures", "transformers_version", "_name_or_path"}
        parts[name] = {key: value for key, value in (given or {}).items() if key not in dropped}
    text = parts["text_config"]
    text["longtext_len"] = text.get("longtext_len") or family.long_positions
    text["keep_len"] = text.get("keep_len", KEPT)
    return transformers.Siglip2Config(**parts)
