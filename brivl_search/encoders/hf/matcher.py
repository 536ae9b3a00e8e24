"""`hf:` matchers: BLIP, BLIP-2 and ViLT of transformers, as a `brivl_search.encoders.matching.Matcher`.

They read English. Text and picture go through the whole model together, so a query costs as much as its hits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.family import read_preprocessing
from brivl_search.encoders.hf.files import digest, find_model, read_json, tokenizer_files, weight_files
from brivl_search.encoders.hf.shown import Seen, Shown, load_all, shown
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

BATCH = 8


@dataclass(frozen=True)
class _Kind:
    """One class of matchers.

    Attributes:
        arguments: of its forward pass, beside what the processor makes.
        logits: what it answers with → (n, 1) or (n, 2); of two, the second is "they match".
        tokens: most tokens of a text.
    """

    arguments: dict[str, Any]
    logits: Callable[[Any], Any]
    tokens: int


KINDS = {
    "BlipForImageTextRetrieval": _Kind({"use_itm_head": True}, lambda out: out.itm_score, 512),
    "Blip2ForImageTextRetrieval": _Kind({"use_image_text_matching_head": True}, lambda out: out.logits_per_image, 512),
    "ViltForImageAndTextRetrieval": _Kind({}, lambda out: out.logits, 40),
}


class TransformersMatcher:
    """A matcher of transformers. The model is loaded when it is first used."""

    cosine_weight = 0.0  # it is better than the towers by so much that their cosine does not help

    def __init__(self, name: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        """Reads the config files and hashes the weights. Imports neither torch nor transformers.

        Args:
            name: hf:ORG/NAME[@REVISION], or hf:FOLDER.
            device, precision: as of `brivl_search.encoders.matching.load_matcher`.

        Raises:
            EncoderError: the model is not on this disk and cannot be downloaded, is damaged, or is no matcher.
        """
        found = find_model(name.removeprefix("hf:"))
        self.name, self.folder = found.name, found.folder
        config = read_json(self.folder / "config.json")
        self.kind = next((one for one in config.get("architectures") or [] if one in KINDS), "")
        if not self.kind:
            what = ", ".join(map(str, config.get("architectures") or [])) or config.get("model_type")
            raise EncoderError(f"{self.name} is no matcher ({what}): known are {', '.join(KINDS)}")
        pictures = read_preprocessing(self.folder)
        self._seen = Seen.of(pictures)
        self.pixels = self._seen.pixels
        positions = [_positions(config), KINDS[self.kind].tokens]
        self.max_length = min(one for one in positions if one)
        files = [*weight_files(self.folder), *tokenizer_files(self.folder)]
        settings = {"kind": self.kind, "pictures": pictures, "config": config, "max_length": self.max_length}
        self.fingerprint = "matcher-" + digest(files, settings)[:24]
        self._device, self._precision = device, precision
        self._using = threading.Lock()

    @cached_property
    def device(self) -> torch.device:
        from brivl_search.encoders.device import pick_device

        return pick_device(self._device)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Processor and model. Raises EncoderError: a file is missing or damaged."""
        processor, model = load_all(self.folder, ["AutoProcessor", self.kind], f"matcher {self.name}", self.device)
        return processor, model

    def pictures(self, pixels: NDArray[np.uint8], origins: Sequence[Origin]) -> list[Shown]:
        """See `Matcher`."""
        return shown(pixels, origins)

    def scores(self, texts: Sequence[str], pictures: Sequence[Shown]) -> NDArray[np.float32]:
        """See `Matcher`: the model's log-odds, "they match" against "they do not"."""
        import torch

        from brivl_search.encoders.device import has_fast_bf16

        processor, model = self._loaded
        bf16 = self._precision == "bf16" or (self._precision == "auto" and has_fast_bf16(self.device))
        kind, out = KINDS[self.kind], np.empty(len(texts), np.float32)
        with self._using, torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for start in range(0, len(texts), BATCH):
                rows = slice(start, start + BATCH)
                inputs = processor(
                    images=[self._seen.picture(one) for one in pictures[rows]], text=list(texts[rows]), padding=True,
                    truncation=True, max_length=self.max_length, return_tensors="pt",
                ).to(self.device)  # fmt: skip
                logits = kind.logits(model(**inputs, **kind.arguments)).float()
                odds = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
                out[rows] = odds.cpu().numpy()
        return out


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model has positions for, if its config says so."""
    for part in (config, config.get("text_config"), config.get("qformer_config")):
        found = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(found, int):
            # RoBERTa's first two positions are no token's.
            return found
    return None
