"""Recall on the held-out photos during training, by the same code as `brivl-search eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brivl_search.corpus.images import load_pixels
from brivl_search.metrics import ranks_exact, summarize
from train.data.photos import Photo
from train.model.kinds.base import Kind
from train.model.towers import TwoTowers

KS = (1, 5, 10)

Recall = dict[str, dict[str, float]]  # caption field → figure, such as t2i@10 → percent


class Validation:
    """Both directions of recall@1,5,10 over the validation photos and captions of one field (at the end, of all).

    The field is the first of zh_mt_google, zh, en that the photos have, else their first field. Vectors are those of
    the encoder: corrected where the start has a correction (`hubs.safetensors`).
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        kind: Kind,
        *,
        cached: np.ndarray | None,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.photos, self.kind = photos, kind
        self.cached, self.device, self.bf16 = cached, device, bf16
        fields = [name for photo in self.photos for name in photo.captions]
        self.fields = list(dict.fromkeys(fields))
        preferred = [name for name in ("zh_mt_google", "zh", "en") if name in self.fields]
        self.name = (preferred or self.fields or ["none"])[0]

    def measure(self, towers: TwoTowers, *, final: bool = False) -> Recall:
        """Recall in percent, e.g. {"zh_mt_google": {"t2i@1": 23.0, ..., "i2t@10": 69.2}}."""
        if not self.photos:
            return {}
        images = self.images(towers)
        return {name: self._field(towers, images, name) for name in (self.fields if final else [self.name])}

    def images(self, towers: TwoTowers, batch: int = 128) -> np.ndarray:
        """The encoder's vectors of the photos, float32 (N, dim)."""
        towers.eval()
        parts = []  # not in inference mode: peft's MultiheadAttention makes its weights anew in every pass
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            for start in range(0, len(self.photos), batch):
                parts.append(self._images(towers, range(start, min(start + batch, len(self.photos)))))
        vectors = np.concatenate(parts)
        return vectors if self.kind.hubness is None else self.kind.hubness.images(vectors)

    def texts(self, towers: TwoTowers, texts: Sequence[str], batch: int = 250) -> np.ndarray:
        """The encoder's vectors of texts, float32 (N, dim)."""
        towers.eval()
        tokenizer = self.kind.tokenizer
        ids = tokenizer.ids(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.empty((len(ids), self.kind.dim), dtype=np.float32)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                padded, mask = (torch.from_numpy(a).to(self.device) for a in tokenizer.batch([ids[i] for i in rows]))
                vectors[rows] = towers.embed_texts(padded, mask).float().cpu().numpy()
        return vectors if self.kind.hubness is None else self.kind.hubness.texts(vectors)

    def _field(self, towers: TwoTowers, images: np.ndarray, name: str) -> dict[str, float]:
        texts = [(t, i) for i, photo in enumerate(self.photos) for t in photo.captions.get(name, [])]
        vectors = self.texts(towers, [text for text, _ in texts])
        owner = np.array([i for _, i in texts])
        with_texts = sorted(set(owner.tolist()))
        partners = [np.flatnonzero(owner == i).tolist() for i in with_texts]
        to_image = summarize(ranks_exact(vectors, images, [[i] for i in owner]), KS, len(images))
        to_text = summarize(ranks_exact(images[with_texts], vectors, partners), KS, len(vectors))
        return {f"t2i@{k}": to_image.recall[k] for k in KS} | {f"i2t@{k}": to_text.recall[k] for k in KS}

    def _images(self, towers: TwoTowers, rows: range) -> np.ndarray:
        if self.cached is not None:
            pixels = torch.from_numpy(np.array(self.cached[rows.start : rows.stop, 0])).float()
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        else:
            pixels = torch.from_numpy(np.stack([load_pixels(self.photos[r].path, self.kind.pixels) for r in rows]))
        return towers.embed_images(towers.prepare(pixels.to(self.device))).float().cpu().numpy()

    def score(self, recall: dict[str, Any]) -> float:
        """What picks the best checkpoint: mean of both directions' R@10 of the field. Where that is the same, as among
        few photos, R@5 and R@1 decide: they count a ten-thousandth."""
        if not recall:
            return 0.0
        ten, *finer = ((recall[self.name][f"t2i@{k}"] + recall[self.name][f"i2t@{k}"]) / 2 for k in (10, 5, 1))
        return float(ten + sum(finer) / 1e4)

    def short(self, recall: Any) -> str:
        """For the progress bar."""
        if not recall:
            return "no recall yet"
        figures = recall[self.name]
        return f"R@10 {figures['t2i@10']:.1f} text→image, {figures['i2t@10']:.1f} image→text"
