"""The towers of a model of open_clip as modules that can be exported, and its tokenizer by the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brivl_search.encoders.hf.exporting import NormalPixels, made_pixels, made_texts
from brivl_search.encoders.runtimes import tokens
from brivl_search.encoders.runtimes.graph import Exportable

if TYPE_CHECKING:
    from brivl_search.encoders.runtimes.choice import Side

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class _Images(nn.Module):
    def __init__(self, tower: Any, normal: NormalPixels) -> None:
        super().__init__()
        self.tower, self.normal = tower, normal

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.tower.encode_image(self.normal(pixels), normalize=False)
        return found.float()


class _Texts(nn.Module):
    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor) -> Tensor:
        found: Tensor = self.tower.encode_text(input_ids, normalize=False)
        return found.float()


def exportable(encoder: Any, side: Side) -> Exportable:
    """One side of the encoder."""
    about = encoder.about
    if side == "image":
        module = _Images(encoder.image_tower, NormalPixels(about.mean, about.std))
        return Exportable(module, ["pixels"], made_pixels(about.pixels))

    def example(n: int) -> tuple[Tensor]:
        return (torch.from_numpy(encoder.tokenized(made_texts(n))["input_ids"]),)

    return Exportable(_Texts(encoder.text_tower), ["input_ids"], example)


def save_tokens(encoder: Any, folder: Path) -> tokens.Reading | None:
    """Writes tokenizer.json; None for what only open_clip itself can do: languages, random cuts, the mode "clips"."""
    own, about = encoder.tokens, encoder.about
    clean = str(about.reading.get("clean") or ("lower" if own.words is None else "whitespace"))
    if own.words is None:
        if getattr(own.tokenizer, "reduction_fn", None) is not None:
            return None
        _of_bytes(own.tokenizer).save(str(folder / tokens.FILE))
        return tokens.Reading(about.context, "length", 0, end=own.tokenizer.eot_token_id, clean=clean)
    if hasattr(own.tokenizer, "set_lang_fn") or own.tokenizer.tokenizer_mode or not tokens.save(own.words, folder):
        return None
    return tokens.Reading(
        about.context,
        "length",
        int(own.words.pad_token_id or 0),
        pad_left=own.words.padding_side == "left",
        cut_left=own.words.truncation_side == "left",
        blank=own.words.sep_token_id if own.tokenizer.strip_sep_token else None,
        unknown=own.words.unk_token_id,
        clean=clean,
    )


def _of_bytes(simple: Any) -> Any:
    """open_clip's `SimpleTokenizer`, of the same vocabulary and merges."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.get)
    model = models.BPE(
        vocab=simple.encoder,
        merges=[pair for pair in merges if len(pair) == 2],
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
    )
    made = Tokenizer(model)
    special = [simple.decoder[id_] for id_ in simple.all_special_ids]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"(?i){'|'.join(special)}|{_SPLIT}"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[1]}",
        special_tokens=[(special[0], simple.sot_token_id), (special[1], simple.eot_token_id)],
    )
    return made
