"""`hf:` captioners: BLIP, BLIP-2, GIT and encoder-decoders of transformers, as a `captioning.Captioner`.

What they write is what transformers' own `generate` writes with the same number of beams.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.captioning import Draft, Drafts, check_languages
from brivl_search.encoders.hf.family import read_preprocessing
from brivl_search.encoders.hf.files import digest, find_model, read_json, tokenizer_files, weight_files
from brivl_search.encoders.hf.shown import Seen, load_all, shown
from brivl_search.errors import EncoderError

if TYPE_CHECKING:
    import torch

KINDS = (
    "BlipForConditionalGeneration", "Blip2ForConditionalGeneration", "GitForCausalLM", "VisionEncoderDecoderModel",
)  # fmt: skip
BATCH = 8
BEAMS = 4
LONGEST = 40  # new tokens


class TransformersCaptioner:
    """A captioner of transformers. The model is loaded when it is first used."""

    cosine_weight = 0.0  # it knows more of the picture than most towers

    def __init__(self, name: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        """Reads the config files and hashes the weights. Imports neither torch nor transformers.

        Args:
            name: hf:ORG/NAME[@REVISION], or hf:FOLDER.
            device, precision: as of `brivl_search.encoders.captioners.load_captioner`.

        Raises:
            EncoderError: the model is not on this disk and cannot be downloaded, is damaged, or is no captioner.
        """
        found = find_model(name.removeprefix("hf:"))
        self.name, self.folder = found.name, found.folder
        config = read_json(self.folder / "config.json")
        self.kind = next((one for one in config.get("architectures") or [] if one in KINDS), "")
        if not self.kind:
            what = ", ".join(map(str, config.get("architectures") or [])) or config.get("model_type")
            raise EncoderError(f"{self.name} is no captioner ({what}): known are {', '.join(KINDS)}")
        pictures = read_preprocessing(self.folder)
        self._seen = Seen.of(pictures)
        self.pixels = self._seen.pixels
        self.languages: tuple[str, ...] = ("en",)
        files = [*weight_files(self.folder), *tokenizer_files(self.folder)]
        settings = {"kind": self.kind, "pictures": pictures, "config": config, "beams": BEAMS, "longest": LONGEST}
        self.fingerprint = "captioner-" + digest(files, settings)[:24]
        self._device, self._precision = device, precision
        self._using = threading.Lock()

    @cached_property
    def device(self) -> torch.device:
        from brivl_search.encoders.device import pick_device

        return pick_device(self._device)

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

        from brivl_search.encoders.device import has_fast_bf16

        check_languages(self, languages)
        processor, tokenizer, model = self._loaded
        pictures = [self._seen.picture(one) for one in shown(pixels, origins)]
        bf16 = self._precision == "bf16" or (self._precision == "auto" and has_fast_bf16(self.device))
        out: list[Drafts] = []
        with self._using, torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
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
