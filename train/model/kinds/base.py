"""An architecture as the trainer sees it: two towers, their words and pictures, and how they are written to disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.corpus.pixels import PixelSpec
from brivl_search.encoders.brivl.hubness import Hubness
from brivl_search.errors import UsageError
from train.data.words import Words
from train.model.depth import depths, freeze
from train.model.lora import adapt
from train.model.towers import SentenceCache, TwoTowers
from train.recipe import Training


class Kind(ABC):
    """What a run trains.

    Attributes:
        name: of the model.
        pixels: how a picture becomes the image tower's pixels.
        dim: length of its vectors.
        tokenizer: of its texts.
        towers: both, with the weights that the run starts from; what does not learn is frozen.
        hubness: the correction that its vectors get after the towers; None: there is none.
        tracks_batches: whether a BatchNorm normalises by its own batch.
    """

    name: str
    pixels: PixelSpec
    dim: int
    tokenizer: Words
    towers: TwoTowers
    hubness: Hubness | None = None
    tracks_batches: bool = False

    def fill_momentum(self, slow: TwoTowers) -> bool:
        """Gives the momentum towers weights of their own. Returns whether the start has some."""
        return False

    @abstractmethod
    def save_memory(self) -> None:
        """Activations are computed again in the backward pass (`train.gradient_checkpointing`)."""

    @abstractmethod
    def save(self, folder: Path, towers: TwoTowers, facts: dict[str, Any]) -> None:
        """Writes towers as a folder that `--encoder` takes.

        Args:
            folder: a new folder, or one that was written so before.
            towers: of this architecture.
            facts: how they were trained, JSON-ready.
        """


class Side(nn.Module):
    """One tower of another library's model, as `TwoTowers` calls it. Its BatchNorms keep their statistics."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Side:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def unit(self, vectors: Tensor) -> Tensor:
        """Vectors → unit vectors, float32."""
        return F.normalize(vectors.float(), dim=-1)


def two_towers(image: Side, text: Side, cfg: Training, unused: dict[str, tuple[str, ...]]) -> TwoTowers:
    """Both sides, with what the `[train]` table freezes frozen and LoRA where it asks for it.

    Args:
        image, text: the sides.
        cfg: the table.
        unused: "image" and "text" → beginnings of names of what does not come into that side's vectors.

    Raises:
        DependencyError: peft is not installed.
        UsageError: more is frozen than there is, or LoRA finds nothing to adapt.
    """
    for name, side in (("image", image), ("text", text)):
        what, frozen = f"the {name} tower", getattr(cfg, f"frozen_{name}_layers")
        for parameter_name, parameter in side.model.named_parameters():
            if parameter_name.startswith(unused[name]):
                parameter.requires_grad_(False)
        try:
            freeze(side.model, frozen, what=what, key=f"train.frozen_{name}_layers")
        except ValueError as error:
            raise UsageError(str(error)) from None
        if name in cfg.frozen_towers:
            side.requires_grad_(False)
        elif cfg.lora_rank:
            layers, alpha = depths(side.model).layers, cfg.lora_alpha or 2 * cfg.lora_rank
            adapt(side.model, layers, rank=cfg.lora_rank, alpha=alpha, dropout=cfg.lora_dropout, what=what)
    sentences = SentenceCache(whole=True) if "text" in cfg.frozen_towers else None
    return TwoTowers(image, text, text_chunks=4, sentences=sentences, frozen=cfg.frozen_towers)
