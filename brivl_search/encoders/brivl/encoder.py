"""The encoder over a BriVL checkpoint. Each tower is loaded when it is first used."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brivl_search.encoders.base import Origin, Precision
from brivl_search.encoders.brivl import numpy_text
from brivl_search.encoders.brivl.boxes import BoxSource, box_batch
from brivl_search.encoders.brivl.checkpoint import (
    Checkpoint,
    FolderCheckpoint,
    built,
    regions_fingerprint,
    vectors_fingerprint,
    words_fingerprint,
)
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from brivl_search.encoders.calibration import Calibration
from brivl_search.encoders.inputs import is_batch
from brivl_search.encoders.on_torch import TorchEncoder

if TYPE_CHECKING:
    import torch

    from brivl_search.encoders.brivl.image_tower import ImageTower
    from brivl_search.encoders.brivl.text_tower import TextTower
    from brivl_search.encoders.runtimes.choice import Side
    from brivl_search.encoders.runtimes.graph import Exportable

# So few tokens take a CPU longer in bfloat16 than in float32: benchmarks/README.md, "What the towers cost".
FEW_TOKENS = 64

# Queries come in all lengths and numbers, and torch keeps code and packed weights for every shape it has met: the
# memory of a server grew by 200 MB in 12,000 queries. Multiples of eight tokens cost a lone query 0.7 ms of 5.
LENGTHS = 8


class BriVLEncoder(TorchEncoder):
    """Images and texts → unit vectors with a BriVL checkpoint (see `brivl_search.encoders.base.LoadedEncoder`)."""

    def __init__(
        self,
        checkpoint: Path | Checkpoint,
        *,
        name: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 64,
        boxes: BoxSource | None = None,
    ) -> None:
        """Reads the config and hashes the weights. Loads neither a tower nor torch.

        Args:
            checkpoint: a checkpoint folder, or weights from elsewhere.
            name: how the user calls the encoder; None: as the checkpoint says.
            device: a torch device, or "auto": the GPU where there is one.
            precision: "auto": bfloat16 where the processor multiplies it natively, else float32. A few texts on a CPU
                are always in float32.
            batch_size: images or texts per forward pass.
            boxes: the source of a picture's regions. None, and pictures it does not know: the fixed grid.

        Raises:
            EncoderError: `checkpoint` is not a checkpoint, or is damaged.
        """
        if isinstance(checkpoint, Path):
            checkpoint = FolderCheckpoint(checkpoint)
        self.checkpoint: Checkpoint = checkpoint
        self.folder = self.checkpoint.folder
        self.config = self.checkpoint.config
        super().__init__(
            name or self.checkpoint.name,
            self.config.image.pixels,
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
        self.dim = self.config.dim
        self.calibration = Calibration.from_config(self.config.calibration)
        self.confidence = self.checkpoint.confidence
        self.fingerprint = self.checkpoint.fingerprint
        if boxes is not None:
            both = f"{self.fingerprint}\0{boxes.fingerprint}"
            self.fingerprint = "brivl-" + hashlib.sha256(both.encode()).hexdigest()[:24]
        self.boxes = boxes

    @cached_property
    def image_tower(self) -> ImageTower:
        import torch

        from brivl_search.encoders.brivl.image_tower import ImageTower
        from brivl_search.encoders.memory import keep_freed_memory

        if self.device.type == "cpu":
            keep_freed_memory()
        tower = built(self.folder, lambda: ImageTower(self.config.image, self.dim))
        self.checkpoint.fill("image", tower)
        tower.eval().fuse()
        return tower.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @cached_property
    def text_tower(self) -> TextTower:
        from brivl_search.encoders.brivl.text_tower import TextTower

        tower = built(self.folder, lambda: TextTower(self.config.text, self.dim))
        self.checkpoint.fill("text", tower)
        return tower.to(self.device).eval()

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return self.checkpoint.tokenizer()

    def encode_pictures(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        """As `encode_images` of a ready batch, with the boxes that the source knows for each origin.

        Raises:
            ValueError: `pixels` is not uint8 (n, S, S, 3).
        """
        size = self.pixels.size
        if not is_batch(pixels, self.pixels):
            raise ValueError(f"pixels must be uint8 (n, {size}, {size}, 3), not {pixels.dtype} {pixels.shape}")
        return self._encode_pixels(pixels, origins)

    def encode_unrounded(self, pixels: np.ndarray, origins: Sequence[Origin]) -> np.ndarray:
        """As `encode_pictures`, for pixels that were never rounded to whole grey levels: float64 (n, S, S, 3), 0..255.

        Raises:
            ValueError: `pixels` is not float64.
        """
        if pixels.dtype != np.float64:  # the tower scales float32 in place
            raise ValueError(f"pixels must be float64, not {pixels.dtype}")
        return self._encode_pixels(pixels, origins)

    def _torch_pixels(self, pixels: np.ndarray, origins: Sequence[Origin] | None) -> np.ndarray:
        import torch

        out = np.empty((len(pixels), self.dim), dtype=np.float32)
        tower = self.image_tower
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            for start in range(0, len(pixels), self.batch_size):
                rows = slice(start, start + self.batch_size)
                batch = np.ascontiguousarray(pixels[rows])
                regions: tuple[torch.Tensor, torch.Tensor] | tuple[()] = ()
                if self.boxes is not None:
                    regions = self._boxes_of(batch, None if origins is None else origins[rows])
                out[rows] = tower(torch.from_numpy(batch).to(self.device), *regions).cpu().numpy()
        return self._finished(out, "image")

    def exportable(self, side: Side) -> Exportable:
        from brivl_search.encoders.brivl.exporting import exportable

        return exportable(self, side)

    def tokenized(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        ids, mask = self.tokenizer.batch(self.tokenizer.ids(texts))
        return {"input_ids": ids, "mask": mask}

    @property
    def has_numpy_texts(self) -> bool:
        """Whether texts are embedded without torch as it is: an exported text tower would bring nothing."""
        return self.folder is not None and numpy_text.supports(self.config.text)

    def _finished(self, vectors: np.ndarray, side: Side) -> np.ndarray:
        hubness = self.checkpoint.hubness
        if hubness is None:
            return vectors
        return hubness.images(vectors) if side == "image" else hubness.texts(vectors)

    def _torch_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._finished(self._encode_ids(self.tokenizer.ids(texts)), "text")

    def _boxes_of(self, pixels: np.ndarray, origins: Sequence[Origin] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (n, R, 4) and mask (n, R) of a batch, on the encoder's device."""
        import torch

        found = [None] * len(pixels) if self.boxes is None else self.boxes.find(pixels, origins)
        boxes, mask = box_batch(found, self.config.image.grids, self.config.image.max_boxes)
        return torch.from_numpy(boxes).to(self.device), torch.from_numpy(mask).to(self.device)

    def regions(
        self, pixels: np.ndarray, origins: Sequence[Origin] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a one-tower matcher reads of at most `batch_size` pictures.

        Returns:
            features float (n, R, Σ channels), boxes float32 (n, R, 4) as shares, mask bool (n, R), all on the
            encoder's device. The whole picture is the last region.
        """
        import torch

        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            batch = np.ascontiguousarray(pixels)
            boxes, mask = self._boxes_of(batch, origins)
            given = boxes if self.boxes is not None else None
            return self.image_tower.regions(torch.from_numpy(batch).to(self.device), given), boxes, mask

    def regions_and_vectors(
        self, pixels: np.ndarray, origins: Sequence[Origin] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
        """As `regions`, and the pictures' unit vectors float32 (n, dim). The CNNs run once for both."""
        import torch

        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            batch = np.ascontiguousarray(pixels)
            boxes, mask = self._boxes_of(batch, origins)
            given = (boxes, mask) if self.boxes is not None else ()
            features, vectors = self.image_tower.both(torch.from_numpy(batch).to(self.device), *given)
        return features, boxes, mask, self._finished(vectors.cpu().numpy(), "image")

    @cached_property
    def vectors_fingerprint(self) -> str:
        """Hash of all that decides a picture's vector; another text tower has the same."""
        if self.folder is None:
            return self.fingerprint
        found = vectors_fingerprint(self.folder, self.config)
        return found if self.boxes is None else f"{found}+{self.boxes.fingerprint}"

    @cached_property
    def regions_fingerprint(self) -> str:
        """Hash of all that decides `regions`: another checkpoint with the same CNNs has the same."""
        if self.folder is None:
            return self.fingerprint
        found = regions_fingerprint(self.folder, self.config)
        return found if self.boxes is None else f"{found}+{self.boxes.fingerprint}"

    @cached_property
    def words_fingerprint(self) -> str:
        """Hash of the text tower's words and layers, which a matcher may share."""
        return self.fingerprint if self.folder is None else words_fingerprint(self.folder, self.config)

    def _encode_ids(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        each = self.config.text.max_length if self.config.text.padding == "seen" else 0
        tokens = sum(max(len(row), each) for row in ids)
        if self._without_torch(tokens):
            return self._numpy_text_tower.encode(ids)
        import torch

        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), self.dim), dtype=np.float32)
        tower, bf16 = self.text_tower, self._autocast
        if self._precision == "auto" and self.device.type == "cpu" and tokens <= FEW_TOKENS:
            bf16 = False
        multiple = LENGTHS if len(ids) < self.batch_size else 1
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                padded, mask = self.tokenizer.batch([ids[i] for i in rows], multiple=multiple)
                vectors = tower(torch.from_numpy(padded).to(self.device), torch.from_numpy(mask).to(self.device))
                out[rows] = vectors.cpu().numpy()
        return out

    def _without_torch(self, tokens: int) -> bool:
        """Whether NumPy encodes these texts: they are so few that importing torch would take longer, or too much."""
        return (
            "torch" not in sys.modules
            and self.folder is not None
            and tokens > 0
            and (tokens <= numpy_text.MOST_TOKENS or self.spare_memory)
            and self._device in ("auto", "cpu")
            and self._precision != "bf16"
            and self.has_numpy_texts
        )

    @cached_property
    def _numpy_text_tower(self) -> numpy_text.NumpyTextTower:
        assert self.folder is not None
        return numpy_text.NumpyTextTower(self.folder, self.config.text)

    def _cut_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.tokenizer.cut(texts)

    def spelled(self, texts: Sequence[str]) -> list[str]:
        return [self.tokenizer.spelled(text) for text in texts]

    def _unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        return self.tokenizer.unknown(texts)
