"""What training beside frozen towers reads: photos, captions, cached regions, and the towers' vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.brivl.boxes import grid_shares
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.one_tower.alignment import Regions as RegionVectors
from brivl_search.encoders.one_tower.model import OneTower
from brivl_search.errors import UsageError
from train.beside import BesideRecipe
from train.data.photos import Photo, read_folder
from train.one_tower.regions import Regions
from train.run.show import Bar

CHUNK = 64


class Lessons:
    """Photos, captions, regions and vectors of a recipe.

    Attributes:
        photos: all of them; a photo's number is its place here.
        parts: which are trained on, which choose the weight, which only measure.
        captions: texts, each with the number of its photo in `owners`.
        boxes: float32 (R, 4), the regions' places.
    """

    def __init__(self, recipe: BesideRecipe, base: Path, encoder: BriVLEncoder) -> None:
        self.encoder, self.cfg = encoder, recipe.train
        self.photos: list[Photo] = []
        self.parts: dict[str, list[int]] = {"train": [], "choose": [], "val": []}
        for table in recipe.data:
            found = read_folder(table, base)
            # The towers know their training photos by heart, and their cosine would be trusted too much there.
            first = table.choose
            for name, some in (("train", found.train), ("choose", found.val[:first]), ("val", found.val[first:])):
                self.parts[name] += range(len(self.photos), len(self.photos) + len(some))
                self.photos += some
        self.captions, self.owners, self._of = self._flat()
        self.tokenizer = encoder.tokenizer
        self._ids = self.tokenizer.ids(self.captions)
        self.regions = Regions(encoder, [photo.path for photo in self.photos], recipe.train, _cache(recipe))
        self.boxes = torch.from_numpy(grid_shares(encoder.config.image.grids))
        self._vectors: Tensor | None = None

    def _flat(self) -> tuple[list[str], np.ndarray, list[dict[str, list[int]]]]:
        captions: list[str] = []
        owners: list[int] = []
        places: list[dict[str, list[int]]] = []
        for number, photo in enumerate(self.photos):
            places.append({})
            for name, texts in photo.captions.items():
                places[-1][name] = list(range(len(captions), len(captions) + len(texts)))
                captions += texts
                owners += [number] * len(texts)
        return captions, np.array(owners), places

    def draw(self, step: int, each: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Photos (B,) and captions of each (B, each) for a step; every photo once an epoch, times its `repeat`."""
        seed, batch = self.cfg.seed, self.cfg.batch
        pool = np.repeat(self.parts["train"], [self.photos[n].repeat for n in self.parts["train"]])
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {e: np.random.default_rng((seed, int(e))).permutation(pool) for e in np.unique(places // len(pool))}
        photos = np.array([orders[place // len(pool)][place % len(pool)] for place in places])
        rng = np.random.default_rng((seed, 1, step))
        return photos, np.array([[self._caption(photo, rng) for _ in range(each)] for photo in photos])

    def _caption(self, photo: int, rng: np.random.Generator) -> int:
        weights = self.photos[photo].weights
        names = [name for name in self._of[photo] if weights[name]]
        shares = np.array([weights[name] for name in names])
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        return int(rng.choice(self._of[photo][name]))

    def trained_captions(self) -> list[int]:
        """Numbers of all captions of training photos that are ever drawn."""
        found = []
        for photo in self.parts["train"]:
            weights = self.photos[photo].weights
            found += [caption for name, some in self._of[photo].items() if weights[name] for caption in some]
        return found

    def of(self, photo: int, name: str) -> list[int]:
        """Numbers of a photo's captions in a field."""
        return self._of[photo].get(name, [])

    def views(self, photos: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Regions of these photos, of the plain view or of a crop."""
        crops = rng.integers(1, max(self.cfg.views, 2), size=len(photos))
        plain = (rng.random(len(photos)) < self.cfg.plain_view) | (self.cfg.views == 1)
        return self.regions.take(photos.tolist(), np.where(plain, 0, crops).tolist())

    def tokens(self, captions: np.ndarray) -> tuple[Tensor, Tensor]:
        """ids int64 (B, T) and mask bool (B, T)."""
        ids, mask = self.tokenizer.batch([self._ids[c] for c in captions])
        return torch.from_numpy(ids), torch.from_numpy(mask)

    @torch.inference_mode()
    def fill_bank(self, model: OneTower, *, bf16: bool) -> None:
        """Fills a matcher's bank with captions and plain pictures of the training, always the same ones.

        Raises:
            UsageError: there are fewer training photos than the bank holds.
        """
        config, train = model.config, self.parts["train"]
        if max(config.bank_texts, config.bank_pictures) > len(train):
            raise UsageError(
                f"matcher.bank_texts = {config.bank_texts}, bank_pictures = {config.bank_pictures}: there are only "
                f"{len(train)} training photos"
            )
        rng = np.random.default_rng((self.cfg.seed, 3))
        captions = np.array(
            [self._caption(photo, rng) for photo in rng.choice(train, config.bank_texts, replace=False)]
        )
        photos = rng.choice(train, config.bank_pictures, replace=False).tolist()
        align, bank = model.align, model.bank
        assert align is not None and bank is not None
        model.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            texts = model.texts(*self.tokens(captions))
            parts = [
                model.images(self.regions.take(rows, [0] * len(rows)), self.boxes)
                for rows in (photos[at : at + CHUNK] for at in range(0, len(photos), CHUNK))
            ]
            shown = [align.of_pictures(side.tokens, side.mask) for side in parts]
            pictures = RegionVectors(torch.cat([one.vectors for one in shown]), torch.cat([one.mask for one in shown]))
            bank.fill(align.of_texts(texts.tokens, texts.mask), pictures)

    def text_vectors(self, captions: np.ndarray) -> Tensor:
        """The text tower's vectors (B, dim), as an index would have them."""
        return torch.from_numpy(self.encoder.encode_texts([self.captions[c] for c in captions]))

    def image_vectors(self) -> Tensor:
        """The image tower's vectors of all photos (photos, dim), as an index would have them; made once, and cached."""
        if self._vectors is None:
            paths = [photo.path for photo in self.photos]
            name = hashlib.sha256(json.dumps([self.encoder.fingerprint, paths]).encode()).hexdigest()[:12]
            file = self.regions.folder / f"vectors-{name}.npy"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                found = []
                with Bar("vectors", len(paths)) as bar:
                    for start in range(0, len(paths), CHUNK):
                        found.append(self.encoder.encode_images(paths[start : start + CHUNK]))
                        bar.to(min(start + CHUNK, len(paths)))
                with appearing(file) as (temporary,), temporary.open("wb") as out:
                    np.save(out, np.concatenate(found))
            self._vectors = torch.from_numpy(np.load(file))
        return self._vectors


def _cache(recipe: BesideRecipe) -> Path:
    return Path(recipe.cache or Path(recipe.run) / "cache")
