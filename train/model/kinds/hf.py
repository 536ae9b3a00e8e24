"""Two-tower models of transformers (`hf:`): CLIP, Chinese-CLIP, AltCLIP, MetaCLIP 2, SigLIP, SigLIP 2."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.tokenizer import padded
from brivl_search.encoders.hf.encoder import TransformersEncoder
from brivl_search.encoders.hf.towers import features, quiet
from brivl_search.errors import UsageError
from train.model.kinds.base import Kind, Side, two_towers
from train.model.lora import merged
from train.model.towers import TwoTowers
from train.recipe import Training

TRAINING = "training.json"  # in an exported folder: how it was trained
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".msgpack", ".h5", ".onnx")


class HfWords:
    """The tokenizer of a model, as `Words`. Texts are spelled as the encoder spells them."""

    def __init__(self, encoder: TransformersEncoder) -> None:
        self._encoder, tokenizer = encoder, encoder.tokenizer
        self.max_length = encoder.facts.max_length
        pad = tokenizer.pad_token_id
        self.pad_id = 0 if pad is None else int(pad)
        self.mask_id: int | None = getattr(tokenizer, "mask_token_id", None)
        self.start_id, self.end_id = (
            next((id_ for id_ in ids if id_ is not None), None)
            for ids in (
                (tokenizer.cls_token_id, tokenizer.bos_token_id),
                (tokenizer.sep_token_id, tokenizer.eos_token_id),
            )
        )

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        whole = not self._encoder.facts.family.pad_to_longest  # the model sees its padding, on whichever side it is
        found = self._encoder.tokenizer(
            self._encoder.spelled(texts),
            padding="max_length" if whole else False,
            truncation=True,
            max_length=self.max_length,
        )
        return [list(row) for row in found["input_ids"]]

    def batch(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        return padded(ids, self.pad_id)

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        return self._encoder.unknown_words(list(texts))


class HfImages(Side):
    """Pixels uint8 (B, S, S, 3) → unit vectors (B, dim), float32."""

    def __init__(self, encoder: TransformersEncoder) -> None:
        super().__init__(encoder.image_tower)
        # A copy of the tower does not copy the encoder.
        self._inputs: Callable[[Tensor], dict[str, Tensor]] = lambda pixels: encoder.image_inputs(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.unit(features(self.model.get_image_features(**self._inputs(pixels))))


class HfTexts(Side):
    """Token ids (B, T) and mask (B, T) → unit vectors (B, dim), float32."""

    def __init__(self, encoder: TransformersEncoder, pad: int) -> None:
        super().__init__(encoder.text_tower)
        self._masked, self._pad = encoder.facts.family.pad_to_longest, pad

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {"input_ids": ids.masked_fill(~mask, self._pad)}
        if self._masked:
            inputs["attention_mask"] = mask.long()
        return self.unit(features(self.model.get_text_features(**inputs)))


class HfKind(Kind):
    """A model of transformers, whole or with LoRA."""

    def __init__(self, encoder: TransformersEncoder, cfg: Training) -> None:
        """Loads both towers.

        Raises:
            EncoderError: the weights cannot be loaded.
            DependencyError: peft or the tokenizer's library is missing.
            UsageError: the `[train]` table asks for more than the towers have, or the model has two text walks.
        """
        if encoder.facts.long_length:
            raise UsageError(
                f"{encoder.name}: FG-CLIP 2 cannot be trained here, it reads texts in two ways: set init.encoder to "
                "another model, such as hf:google/siglip2-base-patch16-naflex"
            )
        self._encoder = encoder
        self.name, self.pixels, self.dim = encoder.name, encoder.pixels, encoder.facts.dim
        self.tokenizer = words = HfWords(encoder)
        unused = {
            "image": ("text_", "logit_"),
            "text": ("vision_", "visual_", "logit_"),
        }
        self.towers = two_towers(HfImages(encoder), HfTexts(encoder, words.pad_id), cfg, unused)

    def save_memory(self) -> None:
        for side in (self.towers.image, self.towers.text):
            side.model.gradient_checkpointing_enable({"use_reentrant": False})

    @torch.no_grad()
    def save(self, folder: Path, towers: TwoTowers, facts: dict[str, Any]) -> None:
        import transformers

        state: dict[str, Tensor] = {}
        for side, other in ((towers.text, ("vision_", "visual_")), (towers.image, ("text_",))):
            plain = merged(side.model)
            state |= {n: t.detach().cpu() for n, t in plain.state_dict().items() if not n.startswith(other)}
        source = self._encoder.folder
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
            model: Any = getattr(transformers, self._encoder.facts.family.model_class)(config)
        model.load_state_dict(state, assign=True)
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.is_file() and path.suffix not in WEIGHTS and not path.name.endswith(".index.json"):
                shutil.copyfile(path, folder / path.name)
        for old in folder.glob(".new-*"):  # of a save that was killed
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:  # a kill leaves no half of a file
            with quiet():
                model.save_pretrained(new)
            for path in Path(new).iterdir():
                os.replace(path, folder / path.name)
        write_facts(folder, facts)


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """How a folder's weights were trained, as training.json."""
    with appearing(folder / TRAINING) as (temporary,):
        temporary.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
