"""Models of open_clip (`open_clip:`, and `hf:` repositories in its format)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.hf.files import tokenizer_files
from brivl_search.encoders.hf.layout import CONFIG, WEIGHTS
from brivl_search.encoders.open_clip.encoder import OpenClipEncoder
from brivl_search.encoders.open_clip.towers import load_whole
from train.model.kinds.base import Kind, Side, two_towers
from train.model.kinds.hf import write_facts
from train.model.lora import merged
from train.model.towers import TwoTowers
from train.recipe import Training


class OpenClipWords:
    """open_clip's tokenizer of a model, as `Words`. Its rows are whole: `max_length` tokens, padding among them."""

    def __init__(self, encoder: OpenClipEncoder) -> None:
        self._encoder = encoder
        words = encoder.tokens.words
        self.max_length = encoder.about.context
        self.pad_id = int(getattr(words, "pad_token_id", None) or 0)
        self.mask_id: int | None = getattr(words, "mask_token_id", None)
        self.start_id: int | None = getattr(words, "cls_token_id", None) or getattr(words, "bos_token_id", None)
        self.end_id: int | None = getattr(words, "sep_token_id", None) or getattr(words, "eos_token_id", None)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._encoder.tokens(self._encoder.spelled(texts)).tolist() if texts else []
        return found

    def batch(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        out = np.array(ids, dtype=np.int64).reshape(len(ids), -1)
        return out, np.ones(out.shape, dtype=bool)

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        return self._encoder.unknown_words(list(texts))


class OpenClipImages(Side):
    """Pixels uint8 (B, S, S, 3) → unit vectors (B, dim), float32."""

    def __init__(self, encoder: OpenClipEncoder) -> None:
        super().__init__(encoder.image_tower)
        # A copy of the tower does not copy the encoder.
        self._normalised: Callable[[Tensor], Tensor] = lambda pixels: encoder.normalised(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.unit(self.model.encode_image(self._normalised(pixels), normalize=False))


class OpenClipTexts(Side):
    """Token ids (B, T) → unit vectors (B, dim), float32; open_clip's towers find the padding themselves."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.unit(self.model.encode_text(ids, normalize=False))


class OpenClipKind(Kind):
    """A model of open_clip, whole or with LoRA."""

    def __init__(self, encoder: OpenClipEncoder, cfg: Training) -> None:
        """Loads both towers. Raises as `HfKind`."""
        self._encoder = encoder
        self.name, self.pixels, self.dim = encoder.name, encoder.pixels, encoder.about.dim
        self.tokenizer = OpenClipWords(encoder)
        unused = ("logit_",)
        towers = OpenClipImages(encoder), OpenClipTexts(encoder.text_tower)
        self.towers = two_towers(*towers, cfg, {"image": unused, "text": unused})

    def save_memory(self) -> None:
        for side in (self.towers.image, self.towers.text):
            side.model.set_grad_checkpointing(True)

    @torch.no_grad()
    def save(self, folder: Path, towers: TwoTowers, facts: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        found = self._encoder.model
        state = dict(load_whole(found).state_dict())  # a caption decoder has no tower here, and stays as it is
        for side in (towers.image, towers.text):
            state |= merged(side.model).state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"model_cfg": self._with_own_files(folder), "preprocess_cfg": self._pictures()}
        if self._encoder.about.matryoshka:
            config["matryoshka_dimensions"] = list(self._encoder.about.matryoshka)
        with appearing(folder / WEIGHTS[0]) as (temporary,):
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in state.items()}, temporary)
        with appearing(folder / CONFIG) as (temporary,):
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_facts(folder, facts)

    def _with_own_files(self, folder: Path) -> dict[str, Any]:
        """`model_cfg`; tokenizer and text tower's config are copied, so that the folder needs no hub."""
        found = self._encoder.model
        for path in tokenizer_files(found.tokenizer) if found.tokenizer is not None else ():
            shutil.copyfile(path, folder / path.name)
        if found.text_tower is not None:
            shutil.copyfile(found.text_tower, folder / "config.json")
        return found.about.model

    def _pictures(self) -> dict[str, Any]:
        """`preprocess_cfg`, from what is known of it."""
        about = self._encoder.about
        return {
            "mean": [value / 255 for value in about.mean],
            "std": [value / 255 for value in about.std],
            "interpolation": about.pixels.interpolation,
            "resize_mode": "squash" if about.pixels.resize == "squash" else "shortest",
        }
