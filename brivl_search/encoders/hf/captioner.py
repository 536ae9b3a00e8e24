"""`hf:` captioners: BLIP, BLIP-2, GIT and encoder-decoders of transformers, as a `captioning.Captioner`.

What they write is what transformers' own `generate` writes with the same number of beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.captioning import Draft, Drafts, check_languages
from brivl_search.encoders.hf.shown import load_all, shown
from brivl_search.encoders.hf.whole import WholeModel

KINDS = (
    "BlipForConditionalGeneration", "Blip2ForConditionalGeneration", "GitForCausalLM", "VisionEncoderDecoderModel",
)  # fmt: skip
BATCH = 8
BEAMS = 4
LONGEST = 40  # new tokens


class TransformersCaptioner(WholeModel):
    """A captioner of transformers. The model is loaded when it is first used."""

    cosine_weight = 0.0  # it knows more of the picture than most towers

    WHAT, KINDS = "captioner", KINDS

    def __init__(self, name: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        """As `WholeModel`."""
        super().__init__(name, device=device, precision=precision)
        self.languages: tuple[str, ...] = ("en",)

    def _decides(self) -> dict[str, Any]:
        return {"beams": BEAMS, "longest": LONGEST}

    @cached_property
    def _loaded(self) -> list[Any]:
        """Image processor, tokenizer and model. Raises EncoderError: a file is missing or damaged."""
        kinds = ["AutoImageProcessor", "AutoTokenizer", self.kind]
        return load_all(self.folder, kinds, f"captioner {self.name}", self.device)

    def write(
        self, pixels: NDArray[np.uint8], origins: Sequence[Origin], languages: Sequence[str], count: int
    ) -> list[Drafts]:
        """See `Captioner`. Raises UsageError: it does not write in one of the languages."""
        import torch

        check_languages(self, languages)
        processor, tokenizer, model = self._loaded
        pictures = [self._seen.picture(one) for one in shown(pixels, origins)]
        out: list[Drafts] = []
        with (
            self._using,
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast),
        ):
            for start in range(0, len(pictures), BATCH):
                inputs = processor(images=pictures[start : start + BATCH], return_tensors="pt").to(self.device)
                found = model.generate(
                    **inputs, num_beams=max(BEAMS, count), num_return_sequences=count, do_sample=False,
                    max_new_tokens=LONGEST, return_dict_in_generate=True, output_scores=True,
                )  # fmt: skip
                texts = tokenizer.batch_decode(found.sequences, skip_special_tokens=True)
                scores = found.sequences_scores.float().tolist()
                for at in range(0, len(texts), count):
                    out.append(_drafts(texts[at : at + count], scores[at : at + count]))
        return out


def _drafts(texts: Sequence[str], scores: Sequence[float]) -> Drafts:
    """Those that read differently, best first."""
    found: dict[str, Draft] = {}
    for text, score in zip(texts, scores, strict=True):
        said = " ".join(text.split())
        if said:
            found.setdefault(said, Draft(said, score))
    return Drafts({"en": list(found.values())})
