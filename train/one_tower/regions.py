"""The regions of every photo of a recipe, cached: the image tower is frozen, so its CNNs run once for each view.

View 0 is the plain picture, the others are crops with colour jitter. A number takes one byte, as the sign and
127 · √(|x| / highest), with one `highest` for each CNN of a picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from train.beside import BesideTraining
from train.data.photos import Augment
from train.run.show import Bar

BATCH = 32
Features = Iterator[Tensor]  # (n, R, Σ channels), a batch after the other


def squeeze(features: Tensor, widths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Features (B, R, Σ widths) → int8 of the same shape, and `highest`, float32 (B, CNNs)."""
    parts = torch.split(features.float(), list(widths), 2)
    highest = torch.stack([part.abs().flatten(1).amax(1).clamp(min=1e-6) for part in parts], 1)
    kept = [
        (part.sign() * (part.abs() / highest[:, i, None, None]).sqrt() * 127).round().to(torch.int8)
        for i, part in enumerate(parts)
    ]
    return torch.cat(kept, 2).numpy(), highest.numpy()


def unsqueeze(kept: Tensor, highest: Tensor, widths: Sequence[int]) -> Tensor:
    """What `squeeze` made → features float32."""
    parts = [
        part.float() * part.float().abs() * (highest[:, i, None, None] / 127**2)
        for i, part in enumerate(torch.split(kept, list(widths), 2))
    ]
    return torch.cat(parts, 2)


class Regions:
    """Cached regions of photos, read again from the disk whenever a step wants them.

    Args:
        encoder: the two towers.
        paths: of the photos.
        cfg: how views are cropped.
        folder: of the cache.
    """

    def __init__(self, encoder: BriVLEncoder, paths: Sequence[str], cfg: BesideTraining, folder: Path) -> None:
        self.encoder, self.paths, self.cfg, self.folder = encoder, list(paths), cfg, folder
        self.widths = [backbone.channels for backbone in encoder.image_tower.cnns()]
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []

    def name(self, view: int) -> str:
        """Names the file of a view after all that decides what is in it."""
        how = [] if view == 0 else [view, self.cfg.crop_scale, self.cfg.jitter]
        key = json.dumps([self.encoder.regions_fingerprint, how, self.paths])
        return f"regions-{view}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def make(self, views: int, source: Callable[[int, int], Features] | None = None) -> None:
        """Makes the views that are missing. A kill loses the unfinished view's last batches.

        Args:
            views: how many.
            source: (view, first photo) → features from there on; by default those of the encoder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for view in range(len(self._kept), views):
            self._make(view, source or self._computed)
            files = [self.folder / f"{self.name(view)}{end}.npy" for end in ("", "-highest")]
            self._kept.append((np.load(files[0], mmap_mode="r"), np.load(files[1])))

    def _make(self, view: int, source: Callable[[int, int], Features]) -> None:
        files = [self.folder / f"{self.name(view)}{end}" for end in (".npy", "-highest.npy", ".done")]
        done = int(files[2].read_text()) if files[2].is_file() else 0
        count = len(self.paths)
        with Bar(f"regions, view {view}", count, done) as bar:
            for features in source(view, done) if done < count else ():
                kept, highest = squeeze(features, self.widths)
                if not done:
                    open_memmap(files[0], mode="w+", dtype=np.int8, shape=(count, *kept.shape[1:])).flush()
                    open_memmap(files[1], mode="w+", dtype=np.float32, shape=(count, len(self.widths))).flush()
                out, out_highest = np.load(files[0], mmap_mode="r+"), np.load(files[1], mmap_mode="r+")
                end = done + len(kept)
                out[done:end], out_highest[done:end] = kept, highest
                done = end
                if done // BATCH % 16 == 15 or done == count:
                    out.flush(), out_highest.flush()
                    files[2].write_text(str(done))
                bar.to(done)

    def _computed(self, view: int, first: int) -> Features:
        spec = self.encoder.pixels
        augment = Augment(spec, self.cfg.crop_scale, self.cfg.jitter)

        def read(path: str) -> np.ndarray:
            if view == 0:
                return load_pixels(path, spec)
            seed = int(hashlib.sha256(f"{path}\0{view}".encode()).hexdigest()[:7], 16)
            return augment(path, seed)

        with ThreadPoolExecutor(2) as readers:
            for start in range(first, len(self.paths), BATCH):
                pixels = np.stack(list(readers.map(read, self.paths[start : start + BATCH])))
                yield self.encoder.regions(pixels)[0].float().cpu()

    def take(self, photos: Sequence[int], views: Sequence[int]) -> Tensor:
        """Features float32 (n, R, Σ channels) of these views of these photos."""
        rows = [(self._kept[v][0][p], self._kept[v][1][p]) for p, v in zip(photos, views, strict=True)]
        kept, highest = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        return unsqueeze(kept, highest, self.widths)
