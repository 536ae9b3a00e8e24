"""The encoder over a model of open_clip. Each tower is loaded when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.hf.words import spelling, unknown
from brivl_search.encoders.known import known_matryoshka
from brivl_search.encoders.on_torch import TorchEncoder
from brivl_search.encoders.open_clip.files import OpenClipModel
from brivl_search.encoders.open_clip.tokens import Tokens
from brivl_search.encoders.runtimes.tokens import FastTokens, Reading, cleaned
from brivl_search.encoders.truncate import check_dim, cut

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.runtimes.choice import Side
    from brivl_search.encoders.runtimes.graph import Exportable


class OpenClipEncoder(TorchEncoder):
    """Images and texts → unit vectors with a model of open_clip (see `brivl_search.encoders.base.LoadedEncoder`).

    Program code that comes with a model never runs.
    """

    def __init__(
        self, model: OpenClipModel, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 64
    ) -> None:
        """Hashes the files. Imports neither torch nor open_clip.

        Args:
            model: the model.
            device: a torch device, or "auto": the GPU where there is one.
            precision: "auto": bfloat16 where the processor multiplies it natively, else float32.
            batch_size: images or texts per forward pass.

        Raises:
            EncoderError: a file cannot be read, or the vectors cannot be cut.
        """
        self.model, self.about = model, model.about
        super().__init__(model.name, self.about.pixels, device=device, precision=precision, batch_size=batch_size)
        sizes = self.about.matryoshka or known_matryoshka(model.name)
        self.dim = check_dim(model.name, self.about.dim, model.truncate_dim, sizes)
        self.fingerprint = model.fingerprint(self.dim)
        self._tokenizing = threading.Lock()  # transformers' tokenizers change their settings with every call

    @cached_property
    def image_tower(self) -> Any:
        from brivl_search.encoders.memory import keep_freed_memory
        from brivl_search.encoders.open_clip.towers import load_tower

        if self.device.type == "cpu":
            keep_freed_memory()
        return load_tower(self.model, "image").to(self.device)

    @cached_property
    def text_tower(self) -> Any:
        from brivl_search.encoders.open_clip.towers import load_tower

        return load_tower(self.model, "text").to(self.device)

    @cached_property
    def tokens(self) -> Tokens:
        """The model's tokenizer.

        Raises:
            DependencyError: it needs a package that is not installed.
            EncoderError: its files are missing or damaged.
        """
        return Tokens(self.name, self.about, self.model.tokenizer)

    def _torch_pixels(self, pixels: NDArray[np.uint8], origins: Sequence[Origin] | None) -> NDArray[np.float32]:
        import torch

        out = np.empty((len(pixels), self.about.dim), dtype=np.float32)
        tower = self.image_tower
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(pixels), self.batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + self.batch_size]))
                found = tower.encode_image(self.normalised(batch), normalize=False)
                out[start : start + self.batch_size] = found.float().cpu().numpy()
        return cut(out, self.dim)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 (B, S, S, 3) → what the image tower takes, float32 (B, 3, S, S)."""
        import torch

        mean, std = (torch.tensor(one, device=self.device) for one in (self.about.mean, self.about.std))
        return ((pixels.to(self.device).float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _torch_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        clean = self.spelled(texts)
        out = np.empty((len(clean), self.about.dim), dtype=np.float32)
        tower: Any = self.text_tower if clean else None
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(clean), self.batch_size):
                ids = torch.from_numpy(self.tokenized(clean[start : start + self.batch_size])["input_ids"])
                found = tower.encode_text(ids.to(self.device), normalize=False)
                out[start : start + self.batch_size] = found.float().cpu().numpy()
        return cut(out, self.dim)

    def tokenized(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        if (fast := self._fast_tokens) is not None:
            return dict(fast.batch(texts))
        with self._tokenizing:
            return {"input_ids": self.tokens(texts).numpy()}

    @cached_property
    def _fast_tokens(self) -> FastTokens | None:
        """The tokenizer that came with an exported text tower."""
        tower = self._exported("text")
        return None if tower is None else tower.tokens

    def save_tokens(self, folder: Path) -> Reading | None:
        from brivl_search.encoders.open_clip.exporting import save_tokens

        return save_tokens(self, folder)

    def exportable(self, side: Side) -> Exportable:
        from brivl_search.encoders.open_clip.exporting import exportable

        return exportable(self, side)

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        spelled, fast = self.spelled(texts), self._fast_tokens
        with self._tokenizing:
            lengths = self.tokens.lengths(spelled) if fast is None else fast.lengths(spelled)
        return [max(length - self.about.context, 0) for length in lengths]

    @cached_property
    def _spelling(self) -> Spelling:
        return self.tokens.spelling() if self._fast_tokens is None else spelling(self._fast_tokens)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        read = self._spelling
        with self._tokenizing:
            return [read(text) for text in texts]

    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        spelled = self.spelled(texts)
        if (fast := self._fast_tokens) is not None:
            return unknown(fast, [cleaned(text, fast.reading.clean) for text in spelled])
        with self._tokenizing:
            return self.tokens.unknown(spelled)
