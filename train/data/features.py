"""Caches what the frozen part of the CNNs gives for several augmented views of every photo, so that a CPU's time is
spent on what learns. View 0 is the plain picture, as the encoder will see it; the rest are crops with colour jitter.

A cache is found again by all that decides what is in it: the files (path, size, time of change), the weights of the
frozen blocks, how pixels become their input, the views.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders.brivl.image_tower import ImageTower
from train.data.photos import Augment, Photo
from train.run.show import Bar

DECODING = 2  # goes up when the same file becomes other pixels


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
    how = [weights_of(tower, blocks), list(blocks), views, pixels.to_dict(), repr(augment), bf16, DECODING]
    key = hashlib.sha256(json.dumps([how, [_file(photo.path) for photo in photos]]).encode()).hexdigest()[:16]
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
    with ThreadPoolExecutor(2) as readers, Bar(f"caching {views} views a photo", len(photos), done) as bar:
        for start in range(done, len(photos), batch):
            rows = range(start, min(start + batch, len(photos)))
            for number in range(views):
                stack = np.stack(list(readers.map(lambda row, n=number: view(row, n), rows)))
                out[rows.start : rows.stop, number] = compute(stack)
            if start // batch % 8 == 0 or rows.stop == len(photos):
                out.flush()
                done_file.write_text(str(rows.stop))
            bar.to(rows.stop)
    made: np.ndarray = np.load(data, mmap_mode="r")
    return made


def weights_of(tower: ImageTower, blocks: Sequence[int]) -> str:
    """Hash of what `tower.early(…, blocks)` computes with: networks, normalisation, weights and statistics."""
    digest = hashlib.sha256(json.dumps([dataclasses.asdict(b) for b in tower.config.backbones]).encode())
    for module in tower.frozen_modules(blocks):
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _file(path: str) -> list[object]:
    """What a file is known by; a member of a container by its container."""
    try:
        status = os.stat(path.partition("::")[0])
    except OSError:
        return [path]
    return [path, status.st_size, status.st_mtime_ns]
