"""What a training step sees: photos with captions from several folders, mixed by weights, drawn reproducibly.

Everything random is a function of (seed, epoch) or (seed, step), so a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders.brivl.tokenizer import TextTokenizer
from train.recipe import Data


@dataclass(frozen=True)
class Photo:
    """One training photo: where it lies, its caption sources with their sampling weights, draws per epoch."""

    path: str
    captions: dict[str, list[str]]
    weights: dict[str, float]
    repeat: int = 1


@dataclass
class Photos:
    """Training photos and the held-out validation photos of a recipe."""

    train: list[Photo] = field(default_factory=list)
    val: list[Photo] = field(default_factory=list)


def read_folder(spec: Data, base: Path) -> Photos:
    """Reads one `[[data]]` table of a recipe; its folder is relative to `base`."""
    folder = (base / spec.folder).resolve()
    if spec.missing_ok and not folder.is_dir():
        return Photos()
    photos: list[Photo] = []
    with (folder / spec.file).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            captions: dict[str, list[str]] = {}
            for name in spec.captions:
                texts = [row[name]] if isinstance(row.get(name), str) else row.get(name) or []
                texts = [form.format(t) for t in texts for form in spec.templates.get(name, ["{}"])]
                if texts:
                    captions[name] = texts
            if captions:
                used = {name: spec.captions[name] for name in captions}
                photos.append(Photo(str(folder / row["image"]), captions, used, spec.repeat))
    held, skip = spec.hold_out_last, spec.skip_every
    train = [photo for i, photo in enumerate(photos[: len(photos) - held], 1) if not skip or i % skip]
    return Photos(train, photos[len(photos) - held :])


def held_out(specs: Sequence[Data], base: Path) -> Photos:
    """The `[[data]]` tables of a recipe that trains on `[[shards]]`: validation photos, all rows of a folder or, where
    `hold_out_last` is given, the last."""
    photos = Photos()
    for spec in specs:
        part = read_folder(spec, base)
        photos.val += part.val if spec.hold_out_last else part.train
    return photos


def read_photos(specs: Sequence[Data], base: Path) -> Photos:
    """All `[[data]]` tables of a recipe, in order."""
    photos = Photos()
    for spec in specs:
        part = read_folder(spec, base)
        photos.train += part.train
        photos.val += part.val
    if not photos.train:
        raise SystemExit("the recipe's [[data]] folders hold no training photos: check `folder` and `captions`")
    return photos


class Augment:
    """A training view: random resized crop, colour jitter, some without colour; the flip is drawn per step.

    `scale` is the smallest share of the picture that a crop shows; 1: no crop, the whole picture squashed, as BriVL's
    views, which must keep their boxes. `hue` (at most 0.5, of the circle) and `grey` (a probability) are BriVL's too;
    0 leaves them out.
    """

    def __init__(self, spec: PixelSpec, scale: float, jitter: float, hue: float = 0.0, grey: float = 0.0) -> None:
        self.spec, self.scale, self.jitter, self.hue, self.grey = spec, scale, jitter, hue, grey

    def __repr__(self) -> str:  # names cached views
        more = f", hue={self.hue}, grey={self.grey}" if self.hue or self.grey else ""
        return f"Augment(size={self.spec.size}, scale={self.scale}, jitter={self.jitter}{more})"

    def __call__(self, source: str | bytes, seed: int) -> np.ndarray:
        """A path or an image file's bytes → uint8 (S, S, 3)."""
        from PIL import Image, ImageEnhance

        rng = np.random.default_rng(seed)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            share, ratio = rng.uniform(self.scale, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w = min(np.sqrt(width * height * share * ratio), width)
            h = min(np.sqrt(width * height * share / ratio), height)
            if self.scale >= 1:
                w, h = width, height
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            size = (self.spec.size, self.spec.size)
            view = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, (x, y, x + w, y + h))
        if self.jitter and rng.random() < 0.8:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                view = enhance(view).enhance(float(rng.uniform(1 - self.jitter, 1 + self.jitter)))
            if self.hue:
                hsv = np.array(view.convert("HSV"))
                hsv[..., 0] += np.uint8(round(256 * rng.uniform(-self.hue, self.hue)) % 256)  # wraps around
                view = Image.fromarray(hsv, "HSV").convert("RGB")
        if self.grey and rng.random() < self.grey:
            view = view.convert("L").convert("RGB")
        return np.asarray(view)


def draw_captions(
    captions: Mapping[str, Sequence[str]], weights: Mapping[str, float], count: int, rng: np.random.Generator
) -> Iterator[str]:
    """`count` captions: sources without repetition by weight while there are enough, then again from all."""
    names = list(captions)
    shares = np.array([weights[name] for name in names])
    chosen: list[str] = []
    while len(chosen) < count:
        some = min(count - len(chosen), len(names))
        chosen += list(rng.choice(names, some, replace=False, p=shares / shares.sum()))
    for name in chosen:
        yield captions[name][int(rng.integers(len(captions[name])))]


def drop_tokens(tokenizer: TextTokenizer, ids: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """Masks a share of a text's tokens, never the special ones."""
    special = (tokenizer.pad_id, tokenizer.end_id, tokenizer.start_id)
    mask = tokenizer.mask_id
    assert mask is not None  # every tokenizer that a text tower is trained with has one
    return [mask if token not in special and rng.random() < share else token for token in ids]


class StepDataset(Dataset[dict[str, Tensor]]):
    """Item s is the whole batch of step s, N images with C captions each; of several processes, this one's slice of it.

    What is drawn depends on the whole batch alone, so the slices together are what a single process would see.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        tokenizer: TextTokenizer,
        *,
        batch: int,
        captions: int,
        seed: int,
        pixels: PixelSpec,
        augment: Augment | None = None,
        cached: np.ndarray | None = None,
        plain_view: float = 0.2,
        token_dropout: float = 0.0,
        flip: float = 0.5,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.photos, self.tokenizer = photos, tokenizer
        self.batch, self.captions, self.seed = batch, captions, seed
        self.pixels, self.augment, self.cached = pixels, augment, cached
        self.plain_view, self.token_dropout, self.flip = plain_view, token_dropout, flip
        self.mine = slice(rank * batch // processes, (rank + 1) * batch // processes)
        self.draws = np.repeat(np.arange(len(photos)), [photo.repeat for photo in photos])
        if len(self.draws) < batch:
            raise SystemExit(f"a batch of {batch} needs as many photos; the recipe draws {len(self.draws)} per epoch")
        self.per_epoch = len(self.draws) // batch

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint must know to go on with step `step`: here the step says it all."""
        return {}

    def go_on(self, step: int, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""

    def rows(self, step: int) -> np.ndarray:
        """Photo numbers of step `step`: a slice of the epoch's permutation."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(self.draws)
        return order[place * self.batch : (place + 1) * self.batch]

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 2, step))
        rows = self.rows(step)
        photos = [self.photos[row] for row in rows]
        texts = [t for photo in photos for t in draw_captions(photo.captions, photo.weights, self.captions, rng)]
        ids = self.tokenizer.ids(texts)
        if self.token_dropout:
            ids = [drop_tokens(self.tokenizer, row, self.token_dropout, rng) for row in ids]
        padded, mask = self.tokenizer.batch(ids[self.mine.start * self.captions : self.mine.stop * self.captions])
        flips = torch.from_numpy(rng.random(len(rows)) < self.flip)[self.mine]
        views = np.where(rng.random(len(rows)) < self.plain_view, 0, 1)
        drawn = rng.integers(2**31, size=len(rows))  # number of a cached view, or seed of a new one
        if self.cached is not None:
            choice = views * (1 + drawn % max(self.cached.shape[1] - 1, 1)) % self.cached.shape[1]
            images = torch.from_numpy(self.cached[rows[self.mine], choice[self.mine]]).float()
            images[flips] = images[flips].flip(3)
            images = images.contiguous(memory_format=torch.channels_last)
        else:
            wanted = zip(rows[self.mine], views[self.mine], drawn[self.mine], strict=True)
            images = torch.from_numpy(np.stack([self._pixels(int(r), int(v), int(d)) for r, v, d in wanted]))
            images[flips] = images[flips].flip(2)
        return {
            "images": images,
            "token_ids": torch.from_numpy(padded),
            "token_mask": torch.from_numpy(mask),
            "ids": torch.from_numpy(rows[self.mine].astype(np.int64)),
        }

    def _pixels(self, row: int, view: int, seed: int) -> np.ndarray:
        path = self.photos[row].path
        if view and self.augment is not None:
            return self.augment(path, seed)
        return load_pixels(path, self.pixels)
