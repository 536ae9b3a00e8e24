"""BriVL's own towers: of a recipe's sizes, a checkpoint folder's, the bundled brivl-mini's, a published .pth's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brivl_search.encoders.brivl.checkpoint import Checkpoint, FolderCheckpoint, save_checkpoint, write_hubness
from brivl_search.encoders.brivl.config import ModelConfig
from brivl_search.encoders.brivl.official.checkpoint import OfficialCheckpoint
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from train.model.build import build_towers, save_memory, start_from
from train.model.kinds.base import Kind
from train.model.sizes import open_checkpoint
from train.model.start import check_tokenizer, fill_momentum, load_momentum
from train.model.towers import TwoTowers
from train.recipe import Recipe


class BrivlKind(Kind):
    """Both towers of BriVL."""

    def __init__(self, recipe: Recipe, base: Path) -> None:
        """Builds the towers and fills them with what `[init]` names, else random weights.

        Args:
            recipe: whose.
            base: the folder that its paths are relative to.

        Raises:
            EncoderError: weights or tokenizer cannot be read, or do not fit.
        """
        self.config: ModelConfig = recipe.config
        cfg, init = recipe.train, recipe.init
        self._init = init
        self._checkpoint = None if init.brivl is None else open_checkpoint(init.brivl, base)
        self.name, self.pixels, self.dim = self.config.name, self.config.image.pixels, self.config.dim
        self.tracks_batches = not self.config.image.freeze_bn
        self.towers = build_towers(self.config, cfg)
        self.tokenizer: TextTokenizer = self._words(base)
        start_from(init, base, self.towers)
        self.towers.image.to(memory_format=torch.channels_last)
        whole = self._checkpoint is not None and len(init.towers) == 2
        self.hubness = self._checkpoint.hubness if whole and self._checkpoint is not None else None

    def _words(self, base: Path) -> TextTokenizer:
        init, text = self._init, self.config.text
        folder = None if self._checkpoint is None else self._checkpoint.folder
        if init.tokenizer is not None:
            tokenizer = TextTokenizer((base / init.tokenizer).resolve(), text.max_length)
        else:
            assert self._checkpoint is not None  # `Init` asks for one of the two
            tokenizer = self._checkpoint.tokenizer()
            tokenizer.max_length = text.max_length
        known = [folder] if folder is not None and "text" in init.towers else []
        known += [] if init.text is None else [(base / init.text).resolve()]
        check_tokenizer(tokenizer, text.backbone.get("vocab_size"), known)
        return tokenizer

    def fill_momentum(self, slow: TwoTowers) -> bool:
        found: Checkpoint | None = self._checkpoint
        if isinstance(found, FolderCheckpoint):
            return load_momentum(slow, self.towers, found.folder, self._init.towers)
        if isinstance(found, OfficialCheckpoint):
            state = found.state()
            copies = {name: found.tensors(name, momentum=True, state=state) for name in self._init.towers}
            fill_momentum(slow, self.towers, {name: tensors for name, tensors in copies.items() if tensors})
            return any(copies.values())
        return False

    def save_memory(self) -> None:
        save_memory(self.towers)

    def save(self, folder: Path, towers: TwoTowers, facts: dict[str, Any]) -> None:
        kept = replace(self.config, training=facts)
        image, text = (getattr(towers, name) for name in ("image", "text"))
        assert isinstance(image, nn.Module) and isinstance(text, nn.Module)
        save_checkpoint(folder, kept, image, text, self.tokenizer)
        if self.hubness is not None:
            write_hubness(folder, self.hubness)
