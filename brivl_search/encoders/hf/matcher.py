"""`hf:` matchers: BLIP, BLIP-2 and ViLT of transformers, as a `brivl_search.encoders.matching.Matcher`.

They read English. Text and picture go through the whole model together, so a query costs as much as its hits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.shown import Shown, load_all, shown
from brivl_search.encoders.hf.whole import WholeModel

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


class TransformersMatcher(WholeModel):
    """A matcher of transformers. The model is loaded when it is first used."""

    cosine_weight = 0.0  # it is better than the towers by so much that their cosine does not help

    WHAT, KINDS = "matcher", KINDS

    def __init__(self, name: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        """As `WholeModel`."""
        super().__init__(name, device=device, precision=precision)

    @cached_property
    def max_length(self) -> int:
        """Most tokens of a text."""
        return min(one for one in (_positions(self._config), KINDS[self.kind].tokens) if one)

    def _decides(self) -> dict[str, Any]:
        return {"max_length": self.max_length}

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

        processor, model = self._loaded
        kind, out = KINDS[self.kind], np.empty(len(texts), np.float32)
        with (
            self._using,
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast),
        ):
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
