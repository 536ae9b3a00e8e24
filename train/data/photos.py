"""What a training step sees: photos with captions from several folders, mixed by weights, drawn reproducibly.

Everything random is a function of (seed, epoch) or (seed, step), so a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brivl_search.corpus.captions import BadLine, caption_fields, read_captions
from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.corpus.pixels import Box
from brivl_search.errors import CorpusError, ImageError
from train.data.words import Words
from train.recipe import Data

_TRIES = 20


@dataclass(frozen=True)
class Photo:
    """One training photo: where it lies, its caption sources with their sampling weights, draws per epoch, and the
    line (FILE:NUMBER) that told of it."""

    path: str
    captions: dict[str, list[str]]
    weights: dict[str, float]
    repeat: int = 1
    line: str = ""


@dataclass
class Photos:
    """Training photos and the held-out validation photos of a recipe, and the caption lines that cannot be used."""

    train: list[Photo] = field(default_factory=list)
    val: list[Photo] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def read_folder(spec: Data, base: Path) -> Photos:
    """Reads one `[[data]]` table of a recipe; its folder is relative to `base`.

    Raises:
        CorpusError: there is no caption file, or it has none of the fields.
    """
    folder = (base / spec.folder).resolve()
    if spec.missing_ok and not folder.is_dir():
        return Photos()
    file = folder / spec.file
    if not file.is_file():
        raise CorpusError(
            f"[[data]] there is no caption file {file}: set `folder` and `file` (or give --photos FOLDER)"
        )
    found = Photos()
    photos: list[Photo] = []
    for line in read_captions(file, list(spec.captions) if spec.captions else None, spec.encoding):
        if isinstance(line, BadLine):
            found.bad.append(str(line))
            continue
        if line.captioner:  # a model wrote it: nothing to learn from
            continue
        captions: dict[str, list[str]] = {}
        for name, text in line.texts:
            captions.setdefault(name, []).extend(form.format(text) for form in spec.templates.get(name, ["{}"]))
        if captions:
            used = {name: spec.captions[name] if spec.captions else 1.0 for name in captions}
            photos.append(Photo(line.image, captions, used, spec.repeat, f"{line.file}:{line.line}"))
    if not photos:
        raise CorpusError(_nothing_in(file, spec, found.bad))
    last = len(photos) - spec.hold_out_last
    kept = [number >= last or _held(photo, folder, spec.hold_out) for number, photo in enumerate(photos)]
    found.val = [photo for photo, held in zip(photos, kept, strict=True) if held]
    skip = spec.skip_every
    found.train = [
        photo
        for number, (photo, held) in enumerate(zip(photos, kept, strict=True), 1)
        if not held and (not skip or number % skip) and any(photo.weights.values())
    ]
    return found


def _held(photo: Photo, folder: Path, share: float) -> bool:
    """Whether a photo is of the share that is kept for validation: by its name, so that it stays so in a file that
    grows, with all the lines that tell of it."""
    name = os.path.relpath(photo.path, folder).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") < share * (1 << 48)


def _nothing_in(file: Path, spec: Data, bad: Sequence[str]) -> str:
    if bad:
        return f"[[data]] {file} has no line that can be used; the first: {bad[0]}"
    there = caption_fields(str(file), spec.encoding)
    if there and (not spec.captions or set(spec.captions) & set(there)):
        return f"[[data]] {file} has captions by models alone: give captions by people"
    wanted = ", ".join(spec.captions or ())
    near = [n for name in spec.captions or () for n in difflib.get_close_matches(name, there, 1)]
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(there) or 'none'}"
    return f"[[data]] no line of {file} has a caption in {wanted}: {advice}" if wanted else f"[[data]] {file} is empty"


def held_out(specs: Sequence[Data], base: Path) -> Photos:
    """The `[[data]]` tables of a recipe that trains on `[[shards]]`: validation photos, all rows of a folder or, where
    `hold_out` or `hold_out_last` is given, those."""
    photos = Photos()
    for spec in specs:
        part = read_folder(spec, base)
        photos.val += part.val if spec.hold_out_last or spec.hold_out else part.train
        photos.bad += part.bad
    return photos


def read_photos(specs: Sequence[Data], base: Path) -> Photos:
    """All `[[data]]` tables of a recipe, in order. Raises: CorpusError."""
    photos = Photos()
    for spec in specs:
        part = read_folder(spec, base)
        photos.train += part.train
        photos.val += part.val
        photos.bad += part.bad
    if not photos.train:
        raise CorpusError(
            "the recipe's [[data]] folders hold no training photos: check `folder`, `captions` and what is held out"
        )
    return photos


class Augment:
    """A training view: random resized crop, colour jitter, some without colour; the flip is drawn per step.

    Pictures are decoded as the index decodes them: upright, transparency on its ground, deep greys scaled.
    `scale` is the smallest share of the picture that a crop shows; 1: no crop, what an index sees of the picture, as
    BriVL's views, which must keep their boxes. `hue` (at most 0.5, of the circle) and `grey` (a probability) are
    BriVL's too; 0 leaves them out.
    """

    def __init__(self, spec: PixelSpec, scale: float, jitter: float, hue: float = 0.0, grey: float = 0.0) -> None:
        self.spec, self.scale, self.jitter, self.hue, self.grey = spec, scale, jitter, hue, grey

    def __repr__(self) -> str:  # names cached views
        more = f", hue={self.hue}, grey={self.grey}" if self.hue or self.grey else ""
        return f"Augment({self.spec}, scale={self.scale}, jitter={self.jitter}{more})"

    def __call__(self, source: str | bytes, seed: int) -> np.ndarray:
        """A path or an image file's bytes → uint8 (S, S, 3). Raises: ImageError."""
        rng = np.random.default_rng(seed)
        share, ratio = rng.uniform(self.scale, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = rng.random(2)

        def crop(width: int, height: int) -> Box:
            w = min(np.sqrt(width * height * share * ratio), width)
            h = min(np.sqrt(width * height * share / ratio), height)
            x, y = across * (width - w), down * (height - h)
            return float(x), float(y), float(x + w), float(y + h)

        view = load_pixels(source, self.spec, crop=crop if self.scale < 1 else None)
        return self._coloured(view, rng) if self.jitter or self.grey else view

    def _coloured(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        from PIL import Image, ImageEnhance

        view = Image.fromarray(pixels)
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
    names = [name for name in captions if weights[name]]
    shares = np.array([weights[name] for name in names])
    chosen: list[str] = []
    while len(chosen) < count:
        some = min(count - len(chosen), len(names))
        chosen += list(rng.choice(names, some, replace=False, p=shares / shares.sum()))
    for name in chosen:
        yield captions[name][int(rng.integers(len(captions[name])))]


def mask_id(tokenizer: Words, share: float) -> int:
    """Id of the token that dropped ones become; any where none is dropped (`share` 0)."""
    if tokenizer.mask_id is not None:
        return tokenizer.mask_id
    if share:
        raise SystemExit("train.token_dropout needs a tokenizer with a [MASK] token: set it to 0")
    return tokenizer.pad_id


def drop_tokens(tokenizer: Words, ids: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """Masks a share of a text's tokens, never the special ones."""
    special = (tokenizer.pad_id, tokenizer.end_id, tokenizer.start_id)
    mask = mask_id(tokenizer, share)
    return [mask if token not in special and rng.random() < share else token for token in ids]


class StepDataset(Dataset[dict[str, Tensor]]):
    """Item s is the whole batch of step s, N images with C captions each; of several processes, this one's slice of it.

    What is drawn depends on the whole batch alone, so the slices together are what a single process would see.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        tokenizer: Words,
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
        rows, count = self.rows(step).copy(), self.captions
        photos = [self.photos[row] for row in rows]
        texts = [t for photo in photos for t in draw_captions(photo.captions, photo.weights, count, rng)]
        ids = self.tokenizer.ids(texts)
        if self.token_dropout:
            ids = [drop_tokens(self.tokenizer, row, self.token_dropout, rng) for row in ids]
        flips = torch.from_numpy(rng.random(len(rows)) < self.flip)[self.mine]
        views = np.where(rng.random(len(rows)) < self.plain_view, 0, 1)
        drawn = rng.integers(2**31, size=len(rows))  # number of a cached view, or seed of a new one
        if self.cached is not None:
            choice = views * (1 + drawn % max(self.cached.shape[1] - 1, 1)) % self.cached.shape[1]
            images = torch.from_numpy(self.cached[rows[self.mine], choice[self.mine]]).float()
            images[flips] = images[flips].flip(3)
            images = images.contiguous(memory_format=torch.channels_last)
        else:
            stack = []
            for place in range(*self.mine.indices(len(rows))):
                pixels, row = self._pixels(int(rows[place]), int(views[place]), int(drawn[place]))
                stack.append(pixels)
                if row != rows[place]:
                    rows[place], photo = row, self.photos[row]
                    other = np.random.default_rng((self.seed, 5, step, place))
                    told = list(draw_captions(photo.captions, photo.weights, count, other))
                    ids[place * count : (place + 1) * count] = self.tokenizer.ids(told)
            images = torch.from_numpy(np.stack(stack))
            images[flips] = images[flips].flip(2)
        padded, mask = self.tokenizer.batch(ids[self.mine.start * count : self.mine.stop * count])
        return {
            "images": images,
            "token_ids": torch.from_numpy(padded),
            "token_mask": torch.from_numpy(mask),
            "ids": torch.from_numpy(rows[self.mine].astype(np.int64)),
        }

    def _pixels(self, row: int, view: int, seed: int) -> tuple[np.ndarray, int]:
        """Pixels of a photo; of the next one that can be read, where it cannot (any more). And its number."""
        reason = ""
        for other in (n % len(self.photos) for n in range(row, row + _TRIES)):
            photo = self.photos[other]
            try:
                if view and self.augment is not None:
                    return self.augment(photo.path, seed), other
                return load_pixels(photo.path, self.pixels), other
            except ImageError as error:
                reason = f"{photo.path}: {error} ({photo.line})"
                warnings.warn(f"{reason}; the next photo is taken instead", stacklevel=2)
        raise SystemExit(f"{_TRIES} photos in a row cannot be read; the last: {reason}")
