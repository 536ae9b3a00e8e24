"""A matcher folder as a `Matcher`. The model is loaded when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Encoder, Origin, Precision
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.model_folder import fingerprint, load_tokenizer, read_config
from brivl_search.encoders.on_device import OnDevice
from brivl_search.encoders.one_tower.checkpoint import load_model
from brivl_search.encoders.one_tower.config import MatcherConfig
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.brivl.tokenizer import TextTokenizer
    from brivl_search.encoders.one_tower.model import OneTower, Side

BATCH = 64


@dataclass(frozen=True)
class Picture:
    """What is read of a picture before any pair.

    Attributes:
        tokens: float16 (R, width): 28 kB for 37 regions of 384.
        hub: how well it fits any text (`OneTower.image_hubs`); 0 without a bank.
    """

    tokens: NDArray[np.float16]
    hub: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return self.tokens.nbytes


class OneTowerMatcher(OnDevice):
    """Re-orders hits of the encoder whose regions it was trained on (see `brivl_search.encoders.matching.Matcher`)."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        name: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        """Reads the config and hashes the weights.

        Args:
            folder: of the matcher.
            encoder: of the index; its image tower gives the regions.
            name: how the user calls the matcher; None: the folder.
            device, precision: as of `brivl_search.encoders.matching.load_matcher`.

        Raises:
            EncoderError: the folder is damaged, its tokenizer is of another vocabulary, or the encoder's regions are
                not those that the matcher reads.
        """
        self.folder, self.config = folder, read_config(MatcherConfig, folder)
        self.name = name or str(folder)
        if not isinstance(encoder, BriVLEncoder):
            raise EncoderError(
                f"matcher {self.name} reads the regions of a BriVL image tower, and {encoder.name} has none: give a "
                "matcher by hf:"
            )
        if self.config.regions != encoder.regions_fingerprint:
            raise EncoderError(
                f"matcher {self.name} reads the regions of another image tower ({self.config.regions or 'unknown'}) "
                f"than {encoder.name} has ({encoder.regions_fingerprint}): give the matcher that was trained for it"
            )
        if self.config.shared_layers and self.config.texts != encoder.words_fingerprint:
            raise EncoderError(
                f"matcher {self.name} shares the words of another text tower ({self.config.texts or 'unknown'}) than "
                f"{encoder.name} has ({encoder.words_fingerprint}): give the matcher that was trained for it"
            )
        self.encoder, self.pixels = encoder, encoder.pixels
        self.fingerprint = fingerprint(folder, self.config)
        self.cosine_weight = self.config.cosine_weight
        self._device, self._precision = device, precision

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """Raises EncoderError: it is missing, damaged, or has other words than the model."""
        return load_tokenizer(self.folder, self.config, self.config.vocab_size, self.config.max_length)

    @cached_property
    def model(self) -> OneTower:
        return load_model(self.folder, self.config, lambda: self.encoder.text_tower).to(self.device)

    def pictures(self, pixels: NDArray[np.uint8], origins: Sequence[Origin]) -> list[Picture]:
        """See `Matcher`. Runs the encoder's CNNs, which is most of the time."""
        out: list[Picture] = []
        for start in range(0, len(pixels), BATCH):
            rows = slice(start, start + BATCH)
            out += self._pictures(*self.encoder.regions(pixels[rows], origins[rows]))
        return out

    def pictures_and_vectors(
        self, pixels: NDArray[np.uint8], origins: Sequence[Origin]
    ) -> tuple[list[Picture], NDArray[np.float32]]:
        """See `KeepsRegions`."""
        out: list[Picture] = []
        vectors = np.empty((len(pixels), self.encoder.dim), np.float32)
        for start in range(0, len(pixels), BATCH):
            rows = slice(start, start + BATCH)
            *regions, vectors[rows] = self.encoder.regions_and_vectors(pixels[rows], origins[rows])
            out += self._pictures(*regions)
        return out, vectors

    def picture(self, tokens: NDArray[np.float16], hub: float) -> Picture:
        """See `KeepsRegions`."""
        return Picture(tokens, hub)

    @property
    def region_sizes(self) -> tuple[int, int]:
        """Most regions of a picture, and numbers of a region."""
        image = self.encoder.config.image
        grid = sum(n * n for n in image.grids)
        return grid if self.encoder.boxes is None else max(grid, image.max_boxes + 1), self.config.width

    def _pictures(self, features: torch.Tensor, boxes: torch.Tensor, mask: torch.Tensor) -> list[Picture]:
        import torch

        out: list[Picture] = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            # The encoder may compute in bfloat16 where the matcher does not.
            side = self.model.images(*(part.to(self.device) for part in (features.float(), boxes, mask)))
            hubs = self.model.image_hubs(side).tolist() if self.model.bank else [0.0] * len(side.tokens)
            for tokens, there, hub in zip(side.tokens, side.mask, hubs, strict=True):
                out.append(Picture(tokens[there].half().cpu().numpy(), hub))
        return out

    def scores(self, texts: Sequence[str], pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """See `Matcher`."""
        import torch

        out = np.empty(len(texts), np.float32)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(texts), BATCH):
                rows = slice(start, start + BATCH)
                some, text_at = _each(texts[rows])
                shown, image_at = _each_picture(pictures[rows])
                said = self._texts(some)
                logits = self.model.logits(
                    said, self._images(shown), text_at.to(self.device), image_at.to(self.device)
                ).cpu()
                if self.model.bank and (weight := self.config.hub_weight):
                    # Both are taken off: for one text, and for one picture, the other's is the same in every pair.
                    hubs = self.model.text_hubs(said).cpu()[text_at]
                    logits = logits - weight * (hubs + torch.tensor([shown[at].hub for at in image_at.tolist()]))
                out[rows] = logits.numpy()
        return out

    def _texts(self, texts: Sequence[str]) -> Side:
        import torch

        ids, mask = self.tokenizer.batch(self.tokenizer.ids(texts), multiple=8)
        return self.model.texts(torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device))

    def _images(self, pictures: Sequence[Picture]) -> Side:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from brivl_search.encoders.one_tower.model import Side

        tokens = [torch.from_numpy(picture.tokens).to(self.device).float() for picture in pictures]
        there = [torch.ones(len(one), dtype=torch.bool, device=self.device) for one in tokens]
        return Side(pad_sequence(tokens, batch_first=True), pad_sequence(there, batch_first=True))


def _each(texts: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """Different texts, and which of them each one is."""
    import torch

    number = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    return list(number), torch.tensor([number[text] for text in texts])


def _each_picture(pictures: Sequence[Picture]) -> tuple[list[Picture], torch.Tensor]:
    """As `_each`, of pictures that are the same object."""
    import torch

    number: dict[int, int] = {}
    different: list[Picture] = []
    for picture in pictures:
        if id(picture) not in number:
            number[id(picture)] = len(different)
            different.append(picture)
    return different, torch.tensor([number[id(picture)] for picture in pictures])
