"""The encoder over a two-tower model of transformers. Each tower is loaded when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.patches import unpack
from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.family import read_facts
from brivl_search.encoders.hf.files import FoundModel, digest, tokenizer_files, weight_files
from brivl_search.encoders.hf.words import spelling, unknown, unreadable
from brivl_search.encoders.known import known_matryoshka
from brivl_search.encoders.on_torch import TorchEncoder
from brivl_search.encoders.runtimes.tokens import FastTokens, Reading, save
from brivl_search.encoders.settings import Settings, no_patches, no_prompts, no_walks
from brivl_search.encoders.truncate import check_dim, cut

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.runtimes.choice import Side
    from brivl_search.encoders.runtimes.graph import Exportable


class TransformersEncoder(TorchEncoder):
    """Images and texts → unit vectors with a model of transformers (see `brivl_search.encoders.base.LoadedEncoder`)."""

    def __init__(
        self, found: FoundModel, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 64
    ) -> None:
        """Reads the config files and hashes the weights. Imports neither torch nor transformers.

        Args:
            found: the model.
            device: a torch device, or "auto": the GPU where there is one.
            precision: "auto": bfloat16 where the processor multiplies it natively, else float32.
            batch_size: images or texts per forward pass.

        Raises:
            EncoderError: a file is missing or damaged, the kind of model is unknown, or its vectors cannot be cut.
            UsageError: its name asks for something that it does not have: prompts, a walk, a number of patches.
        """
        no_prompts(found.name, found.settings)
        self.folder, self.facts = found.folder, read_facts(found.folder, found.settings.patches)
        if not self.facts.family.patched:
            no_patches(found.name, found.settings)
        if not self.facts.long_length:
            no_walks(found.name, found.settings)
        super().__init__(found.name, self.facts.pixels, device=device, precision=precision, batch_size=batch_size)
        sizes = self.facts.matryoshka or known_matryoshka(found.name)
        self.dim = check_dim(found.name, self.facts.dim, found.settings.dim, sizes)
        files = [*weight_files(found.folder), *tokenizer_files(found.folder)]
        decides = {**self.facts.settings, **self._walk_settings(found.settings), "dim": self.dim}
        self.fingerprint = "hf-" + digest(files, decides)[:24]
        self._tokenizing = threading.Lock()  # transformers' tokenizers change their settings with every call

    def _walk_settings(self, settings: Settings) -> dict[str, Any]:
        """What of the name's settings decides how texts are read, for the fingerprint."""
        return {}

    @cached_property
    def image_tower(self) -> Any:
        from brivl_search.encoders.hf.towers import load_tower
        from brivl_search.encoders.memory import keep_freed_memory

        if self.device.type == "cpu":
            keep_freed_memory()
        return load_tower(self.folder, self.facts.family, "image").to(self.device)

    @cached_property
    def text_tower(self) -> Any:
        from brivl_search.encoders.hf.towers import load_tower

        return load_tower(self.folder, self.facts.family, "text").to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with an exported text tower, else the model's, by transformers.

        Raises:
            DependencyError: it needs sentencepiece, which is not installed.
            EncoderError: its files are missing or damaged.
        """
        tower = self._exported("text")
        if tower is not None and tower.tokens is not None:
            return tower.tokens
        from transformers import AutoTokenizer

        from brivl_search.encoders.hf.towers import quiet

        try:
            with quiet():
                return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise unreadable(self.name, f"the tokenizer in {self.folder}", error) from None

    def _torch_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        import torch

        from brivl_search.encoders.hf.towers import features

        out = np.empty((len(pixels), self.facts.dim), dtype=np.float32)
        tower = self.image_tower
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(pixels), self.batch_size):
                inputs = self.image_inputs(
                    torch.from_numpy(np.ascontiguousarray(pixels[start : start + self.batch_size]))
                )
                found = features(tower.get_image_features(**inputs))
                out[start : start + self.batch_size] = found.float().cpu().numpy()
        return cut(out, self.dim)

    def image_inputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixels uint8 (B, S, S, 3) → the arguments of the model's forward pass."""
        import torch

        mean = torch.tensor(self.facts.mean, device=self.device)
        std = torch.tensor(self.facts.std, device=self.device)
        if self.pixels.resize != "patches":
            normal = (pixels.to(self.device).float() - mean) / std
            return {"pixel_values": normal.permute(0, 3, 1, 2).contiguous()}
        patch, most = self.pixels.patch, self.pixels.max_patches
        tiles, shapes = unpack(pixels.cpu().numpy(), patch, most)
        most = min(most, int(shapes.prod(1).max(initial=1)))  # patches that no picture here has are only padding
        tiles = tiles[:, :most]
        colours = torch.from_numpy(tiles).to(self.device).float().reshape(len(tiles), most, patch * patch, 3)
        mask = torch.arange(most)[None] < torch.from_numpy(shapes.prod(1, keepdims=True))
        mask = mask.to(self.device)
        normal = ((colours - mean) / std).flatten(2) * mask[..., None]  # what pads is zero after normalisation
        return {"pixel_values": normal, "pixel_attention_mask": mask.int(), "spatial_shapes": torch.from_numpy(shapes)}

    def tokenized(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        if isinstance(self.tokenizer, FastTokens):
            return dict(self.tokenizer.batch(texts))
        longest = self.facts.family.pad_to_longest
        with self._tokenizing:
            found = self.tokenizer(
                list(texts),
                padding="longest" if longest else "max_length",
                truncation=True,
                max_length=self.facts.max_length,
                return_attention_mask=longest,
                return_tensors="np",
            )
        return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}

    def save_tokens(self, folder: Path) -> Reading | None:
        if not save(self.tokenizer, folder):
            return None
        return Reading(
            self.facts.max_length,
            "longest" if self.facts.family.pad_to_longest else "length",
            int(self.tokenizer.pad_token_id or 0),
            pad_left=self.tokenizer.padding_side == "left",
            cut_left=self.tokenizer.truncation_side == "left",
            unknown=self.tokenizer.unk_token_id,
        )

    def exportable(self, side: Side) -> Exportable:
        from brivl_search.encoders.hf.exporting import exportable

        return exportable(self, side)

    def _torch_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        from brivl_search.encoders.hf.towers import features

        clean = self.spelled(texts)
        order = sorted(range(len(clean)), key=lambda i: len(clean[i]))
        out = np.empty((len(clean), self.facts.dim), dtype=np.float32)
        tower = self.text_tower
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                inputs = self.tokenized([clean[i] for i in rows])
                named = {name: torch.from_numpy(values).to(self.device) for name, values in inputs.items()}
                out[rows] = features(tower.get_text_features(**named)).float().cpu().numpy()
        return cut(out, self.dim)

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        spelled = self.spelled(texts)
        with self._tokenizing:
            whole = self.tokenizer(spelled, truncation=False, verbose=False)
        return [max(len(ids) - self.facts.max_length, 0) for ids in whole["input_ids"]]

    @cached_property
    def _spelling(self) -> Spelling:
        return spelling(self.tokenizer)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        with self._tokenizing:
            return [self.facts.clean(self._spelling(text)) for text in texts]

    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        spelled = self.spelled(texts)
        with self._tokenizing:
            return unknown(self.tokenizer, spelled)
