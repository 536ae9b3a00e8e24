"""Captions as a task beside the contrastive loss, as WenLan has it: the same image tower, one more loss.

The decoder reads what the image tower makes in this very step: regions and vector, with their gradients. It is part of
the run's state (last.pt), and not of its checkpoint: `train.captions.fit` trains the captioner that people use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brivl_search.corpus.captions import DEFAULT_FIELDS
from brivl_search.encoders.brivl.boxes import grid_shares
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.captions.words import choose_words
from brivl_search.encoders.from_bert import copy_embeddings, copy_layers
from brivl_search.errors import EncoderError
from train.captions.losses import PADDING, caption_loss
from train.data.photos import Photo
from train.recipe import Recipe

LANGUAGES = DEFAULT_FIELDS[:2]
SMOOTHING = 0.1  # of labels


class CaptionTask(nn.Module):
    """Regions, vectors and token ids of a step → the mean loss of a word."""

    rows: Tensor
    is_zh: Tensor
    boxes: Tensor

    def __init__(self, model: Captioner, tokenizer: TextTokenizer, boxes: Tensor) -> None:
        """`boxes`: float32 (R, 4), the regions' places."""
        super().__init__()
        self.model = model
        self.end = int(tokenizer.end_id or 0)
        rows = torch.full((tokenizer.size,), Captioner.UNKNOWN)
        rows[model.kept] = torch.arange(len(model.kept))
        is_zh = torch.zeros(tokenizer.size, dtype=torch.bool)
        is_zh[
            [number for piece, number in tokenizer.words().items() if any("\u4e00" <= c <= "\u9fff" for c in piece)]
        ] = True
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("is_zh", is_zh, persistent=False)
        self.register_buffer("boxes", boxes, persistent=False)

    def forward(self, regions: Tensor, vectors: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """The loss of captions.

        Args:
            regions: (N, R, channels) of the CNNs.
            vectors: (N, dim), unit length.
            token_ids, token_mask: (N · C, T), with [CLS] and [SEP]; the C captions of picture 0 first.
        """
        there = token_mask[:, 1:] & (token_ids[:, 1:] != self.end)
        words = self.rows[token_ids[:, 1:]].masked_fill(~there, PADDING)[:, : self.model.config.max_length - 1]
        zh, en = (self.model.config.starts.index(one) for one in LANGUAGES)
        starts = torch.where((self.is_zh[token_ids] & token_mask).any(1), zh, en)
        memory = self.model.look(regions, self.boxes, vectors)
        shape = (len(regions), len(token_ids) // len(regions))
        return caption_loss(self.model, starts.view(shape), words.reshape(*shape, words.shape[1]), memory, SMOOTHING)


def caption_task(
    recipe: Recipe,
    config: ModelConfig,
    image: ImageTower,
    text: TextTower,
    tokenizer: TextTokenizer,
    photos: Sequence[Photo],
) -> CaptionTask:
    """The task of a recipe with `train.caption_weight`.

    Args:
        recipe: whose `[captioner]` has the decoder's sizes.
        config, image, text, tokenizer: of the towers; the decoder begins with the text tower's words, and layers where
            they are of its sizes.
        photos: to train on; none (shards): the decoder knows every word of the tokenizer.

    Raises:
        EncoderError: sizes are wrong, or do not fit the towers.
    """
    texts = [text for photo in photos for some in photo.captions.values() for text in some]
    kept = choose_words(tokenizer, texts, 1)
    if not texts:
        special = kept[:2]
        kept = [*special, *(n for n in range(tokenizer.size) if n not in special)]
    theirs = text.backbone.config
    sizes = {
        "width": theirs.hidden_size, "heads": theirs.num_attention_heads, "feedforward": theirs.intermediate_size,
        "max_length": tokenizer.max_length, **recipe.captioner, "words": len(kept), "tokenizer_size": tokenizer.size,
        "region_size": image.project.in_features, "vector_size": config.dim, "starts": list(LANGUAGES),
    }  # fmt: skip
    decoder = CaptionConfig.from_dict({"kind": CaptionConfig.KIND, **sizes})
    if decoder.width != theirs.hidden_size:
        raise EncoderError(f"captioner.width = {decoder.width}: the text tower's words have {theirs.hidden_size}")
    model = Captioner(decoder)
    model.kept.copy_(torch.tensor(kept))
    if theirs.model_type == "bert" and decoder.max_length <= theirs.max_position_embeddings:
        copy_embeddings(model, text, model.kept)
        if (decoder.heads, decoder.feedforward) == (theirs.num_attention_heads, theirs.intermediate_size):
            copy_layers(list(model.layers), text)
    return CaptionTask(model, tokenizer, torch.from_numpy(grid_shares(config.image.grids)))
