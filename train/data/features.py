"""Caches what the frozen part of the CNNs gives for several augmented views of every photo, so that a CPU's time is
spent on what learns. View 0 is the plain picture, as the encoder will see it; the rest are crops with colour jitter."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from rich.progress import Progress

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders.brivl.image_tower import ImageTower
from train.data.photos import Augment, Photo


def cached_views(
    folder: Path,
    tower: ImageTower,
    photos: Sequence[Photo],
    *,
    blocks: Sequence[int],
    views: int,
    pixels: PixelSpec,
    augment: Augment,
    batch: int = 32,
    bf16: bool = True,
) -> np.ndarray:
    """float16 memory map (photos, views, c, h, w) of `tower.early(…, blocks)`; made once, continued after a kill."""
    key = hashlib.sha256(
        json.dumps([[p.path for p in photos], list(blocks), views, pixels.to_dict(), repr(augment)]).encode()
    ).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    data, done_file = folder / f"views-{key}.npy", folder / f"views-{key}.done"
    done = int(done_file.read_text()) if done_file.is_file() and data.is_file() else 0
    if done == len(photos):
        whole: np.ndarray = np.load(data, mmap_mode="r")
        return whole
    device = next(tower.parameters()).device
    quick = copy.deepcopy(
        tower
    )  # what learns later keeps its BatchNorms; without them this takes two thirds of the time
    quick.fuse()

    def view(row: int, number: int) -> np.ndarray:
        path = photos[row].path
        if number == 0:
            return load_pixels(path, pixels)
        return augment(path, int(hashlib.sha256(f"{path}\0{number}".encode()).hexdigest()[:7], 16))

    def compute(stack: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return quick.early(torch.from_numpy(np.array(stack)).to(device), blocks).half().cpu().numpy()

    if not done:
        shape = compute(view(0, 0)[None]).shape[1:]
        open_memmap(data, mode="w+", dtype=np.float16, shape=(len(photos), views, *shape)).flush()
    out = np.load(data, mmap_mode="r+")
    with ThreadPoolExecutor(2) as readers, Progress() as progress:
        task = progress.add_task(f"caching {views} views a photo", total=len(photos), completed=done)
        for start in range(done, len(photos), batch):
            rows = range(start, min(start + batch, len(photos)))
            for number in range(views):
                stack = np.stack(list(readers.map(lambda row, n=number: view(row, n), rows)))
                out[rows.start : rows.stop, number] = compute(stack)
            if start // batch % 8 == 0 or rows.stop == len(photos):
                out.flush()
                done_file.write_text(str(rows.stop))
            progress.update(task, completed=rows.stop)
    made: np.ndarray = np.load(data, mmap_mode="r")
    return made
