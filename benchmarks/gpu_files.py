"""The parts of gpu.py that begin with files: decoding, and from files to vectors."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_parts import Job, seconds_of, settle

if TYPE_CHECKING:
    import torch

    from brivl_search.corpus.pixels import PixelSpec

PHOTO = (1600, 1200)  # of a made one


@contextmanager
def photos(job: Job) -> Iterator[list[str]]:
    """Paths of JPEGs: of --images, or made ones of 1,600 × 1,200 that have detail as photographs do."""
    if job.images is not None:
        found = sorted(p for p in job.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        if not found:
            raise ValueError(f"no JPEG below {job.images}")
        yield [os.fspath(path) for path in found]
        return
    from PIL import Image

    width, height = (96, 72) if job.small else PHOTO
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="brivl-gpu-photos-") as folder:
        paths = []
        for number in range(8 if job.small else 64):
            whole = np.zeros((height, width, 3), np.float32)
            for scale in (64, 16, 4, 1):
                size = (max(1, width // scale), max(1, height // scale))
                noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
                whole += np.asarray(noise.resize((width, height)), np.float32) * scale**0.5
            picture = Image.fromarray((255 * (whole - whole.min()) / np.ptp(whole)).astype(np.uint8))
            paths.append(os.path.join(folder, f"{number:03}.jpg"))
            picture.save(paths[-1], quality=90)
        yield paths


def many(paths: Sequence[str], count: int) -> list[str]:
    """`count` paths, going round."""
    return list(itertools.islice(itertools.cycle(paths), count))


@contextmanager
def workers() -> Iterator[tuple[Executor, int]]:
    """As many processes as there are processors, started before the card is opened."""
    number = os.cpu_count() or 1
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        list(pool.map(_nothing, range(number)))
        yield pool, number


def _nothing(number: int) -> int:
    return number


def decode_one(path: str, spec: PixelSpec) -> np.ndarray:
    """A file's pixels, as the tower takes them; runs in a worker."""
    from brivl_search.corpus.images import load_pixels

    return load_pixels(path, spec)


def decoding(job: Job) -> None:
    """CPU workers against nvJPEG; both end with what the tower takes, 224 pixels square."""
    from brivl_search.corpus.pixels import PixelSpec

    side = 32 if job.small else 224
    spec = PixelSpec(size=side)
    with photos(job) as paths, workers() as (pool, number):
        job.cases.put("photos", files=len(paths), bytes=sum(os.path.getsize(path) for path in paths))
        wanted = many(paths, 16 if job.small else 2048)

        def on_workers() -> dict[str, Any]:
            list(pool.map(partial(decode_one, spec=spec), wanted[: 2 * number], chunksize=1))  # imports
            start = time.perf_counter()
            for _ in pool.map(partial(decode_one, spec=spec), wanted, chunksize=8):
                pass
            return {"images_per_second": len(wanted) / (time.perf_counter() - start), "workers": number}

        job.cases.attempt("CPU workers", on_workers)
        if not job.cuda:
            job.cases.put("nvJPEG", skipped="it needs a CUDA device")
            return
        for batch in (16, 64):
            job.cases.attempt(f"nvJPEG, {batch} at once", partial(on_card, job, wanted, batch, side))


def on_card(job: Job, paths: Sequence[str], batch: int, side: int) -> dict[str, Any]:
    """torchvision's nvJPEG, then scaled on the card: read, decode, resize, stack."""
    import torch
    from torch.nn import functional as F
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    def go(some: Sequence[str]) -> torch.Tensor:
        pictures = decode_jpeg([read_file(path) for path in some], mode=ImageReadMode.RGB, device=job.device)
        scaled = [F.interpolate(one[None].float(), (side, side), mode="bilinear", antialias=True) for one in pictures]
        return torch.cat(scaled).round().clamp(0, 255).to(torch.uint8)

    go(paths[:batch])
    settle(job)
    start = time.perf_counter()
    for at in range(0, len(paths) - batch + 1, batch):
        go(paths[at : at + batch])
    settle(job)
    done = len(paths) // batch * batch
    return {"images_per_second": done / (time.perf_counter() - start), "batch": batch}


def end_to_end(job: Job) -> None:
    """Files → worker processes → batches → brivl-mini → vectors on the CPU, without an index."""
    from brivl_search.encoders.registry import load_encoder

    encoder = load_encoder("brivl-mini", device=job.device, precision="bf16")
    with photos(job) as paths, workers() as (pool, number):
        batch = 4 if job.small else 256
        wanted = many(paths, 8 if job.small else 4096)
        decode = partial(decode_one, spec=encoder.pixels)

        def stacked(some: Sequence[str]) -> Iterator[np.ndarray]:
            pending = pool.map(decode, some, chunksize=8)
            while part := list(itertools.islice(pending, batch)):
                yield np.stack(part)

        def alone() -> dict[str, Any]:
            pixels = next(stacked(many(paths, batch)))
            took = seconds_of(job, lambda: encoder.encode_images(pixels), 0.1 if job.small else 3.0)
            return {"images_per_second": batch / took, "batch": batch}

        def whole() -> dict[str, Any]:
            start = time.perf_counter()
            rows = sum(len(encoder.encode_images(pixels)) for pixels in stacked(wanted))
            return {"images_per_second": rows / (time.perf_counter() - start), "workers": number, "images": rows}

        encoded = job.cases.attempt("encoder alone, from the host", alone)
        found = job.cases.attempt("files to vectors", whole)
        if encoded and found:
            share = found["images_per_second"] / encoded["images_per_second"]
            job.cases.put("files to vectors", **found, of_encoder=round(share, 4))
