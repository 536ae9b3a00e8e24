"""A captioner's folder as a `Captioner`. The model is loaded when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Encoder, Origin, Precision
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captioning import Draft, Drafts, check_languages
from brivl_search.encoders.captions.checkpoint import load_model
from brivl_search.encoders.captions.config import CaptionConfig
from brivl_search.encoders.model_folder import fingerprint, load_tokenizer, read_config
from brivl_search.encoders.on_device import OnDevice
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    from brivl_search.encoders.captions.beam import Written
    from brivl_search.encoders.captions.model import Captioner
    from brivl_search.encoders.captions.words import Words

BATCH = 32


class FolderCaptioner(OnDevice):
    """Writes captions with a decoder on the towers that it was trained on (`brivl_search.encoders.captioning`)."""

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
            folder: of the captioner.
            encoder: whose image tower gives regions and vectors.
            name: how the user calls the captioner; None: the folder.
            device, precision: as of `brivl_search.encoders.matching.load_matcher`.

        Raises:
            EncoderError: the folder is damaged, or the encoder is not the one that the captioner reads.
        """
        self.folder, self.config = folder, read_config(CaptionConfig, folder)
        self.name = name or str(folder)
        if not isinstance(encoder, BriVLEncoder):
            raise EncoderError(
                f"captioner {self.name} reads the regions of a BriVL image tower, and {encoder.name} has none: give a "
                "captioner by hf:, or the encoder that it was trained for"
            )
        wanted = (self.config.regions, self.config.vectors)
        if wanted != (encoder.regions_fingerprint, encoder.vectors_fingerprint):
            raise EncoderError(
                f"captioner {self.name} reads another image tower ({self.config.vectors or 'unknown'}) than "
                f"{encoder.name} has ({encoder.vectors_fingerprint}): give the captioner that was trained for it"
            )
        self.encoder, self.pixels = encoder, encoder.pixels
        self.fingerprint = fingerprint(folder, self.config)
        self.languages, self.cosine_weight = self.config.languages, self.config.cosine_weight
        self._device, self._precision = device, precision

    @cached_property
    def model(self) -> Captioner:
        return load_model(self.folder, self.config).to(self.device)

    @cached_property
    def words(self) -> Words:
        """Raises EncoderError: the tokenizer is missing, damaged, or has other words than the model."""
        from brivl_search.encoders.captions.words import Words

        tokenizer = load_tokenizer(self.folder, self.config, self.config.tokenizer_size, self.config.max_length)
        return Words(tokenizer, self.model.kept.tolist())

    def write(
        self, pixels: NDArray[np.uint8], origins: Sequence[Origin], languages: Sequence[str], count: int
    ) -> list[Drafts]:
        """See `Captioner`. Raises UsageError: it does not write in one of the languages."""
        import torch

        from brivl_search.encoders.captions.beam import Search, search

        check_languages(self, languages)
        starts = {language: self.config.starts.index(language) for language in languages}
        config = self.config
        how = Search(max(config.beams, count), config.length_power, config.no_repeat, config.max_length - 1)
        out: list[Drafts] = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for at in range(0, len(pixels), BATCH):
                rows = slice(at, at + BATCH)
                features, boxes, mask, vectors = self.encoder.regions_and_vectors(pixels[rows], origins[rows])
                # The encoder may compute elsewhere, and in bfloat16.
                seen = (features.float().to(self.device), boxes.to(self.device))
                memory = self.model.look(*seen, torch.from_numpy(vectors).to(self.device), mask.to(self.device))
                found = {language: search(self.model, memory, start, how) for language, start in starts.items()}
                for picture, vector in enumerate(vectors):
                    out.append(Drafts({one: self._drafts(some[picture]) for one, some in found.items()}, vector))
        return out

    def _drafts(self, written: Sequence[Written]) -> list[Draft]:
        """As texts; what reads the same is there once."""
        drafts: dict[str, Draft] = {}
        for one in written:
            text = self.words.text(one.words)
            drafts.setdefault(text, Draft(text, one.score))
        return [draft for text, draft in drafts.items() if text]
