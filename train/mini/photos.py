"""The photos that a calibration is fitted on: what they show, whether they were trained on, and their vectors.

Three kinds of collections are under `--data`: Flickr8k-CN (captions in both languages), COCO (English captions), and
labelled ones (`everyday`, `imagenet-samples`: names in both languages). Vectors are kept in a cache, by fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from brivl_search.corpus.atomic import appearing
from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.brivl.encoder import BriVLEncoder

FLICKR = "flickr8k-cn"
CAPTIONED = (FLICKR, "coco-mini", "everyday/coco-train-captioned")
TRAINED = (FLICKR, "coco-mini", "imagenet-samples")  # of the first two rounds, but for Flickr's last photos
HELD_OUT = 500
_BATCH = 32


@dataclass(frozen=True)
class Photo:
    """A photo of the data folder.

    Attributes:
        path: below the data folder.
        collection: its folder.
        captions: by field; none where it has labels.
        labels: names of what it shows, in both languages.
        seen: whether the model was trained with it.
    """

    path: str
    collection: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    seen: bool = True


def read(data: Path, unseen: frozenset[str] | None = None) -> list[Photo]:
    """All photos of the data folder.

    Args:
        data: the folder.
        unseen: paths below it of photos that the model was not trained with; None: those of the first two rounds,
            Flickr's last 500 and all of `everyday`.
    """
    photos = []
    for file in sorted(
        [*data.glob("*/captions.jsonl"), *data.glob("*/labels.jsonl"), *data.glob("*/*/captions.jsonl")]
    ):
        collection = str(file.parent.relative_to(data))
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for at, row in enumerate(rows):
            path = f"{collection}/{row['image']}"
            if unseen is not None:
                seen = path not in unseen
            else:
                seen = collection in TRAINED and not (collection == FLICKR and at >= len(rows) - HELD_OUT)
            captions = {name: value for name, value in row.items() if isinstance(value, list)}
            photos.append(Photo(path, collection, captions, _labels(row), seen))
    return photos


def _labels(row: dict[str, str]) -> frozenset[str]:
    """The names in a row: 公交车、人 and "bus, person" are two."""
    zh, en = row.get("zh_label") or row.get("zh") or "", row.get("en_label") or row.get("en") or ""
    if not isinstance(zh, str) or not isinstance(en, str):
        return frozenset()
    return frozenset(name.strip() for name in [*zh.split("、"), *en.split(", ")] if name.strip())


class Vectors:
    """An encoder's vectors of pictures and texts, each made once and kept.

    Args:
        encoder: the model.
        data: the folder of the photos.
        cache: folder for the vectors of photos.
    """

    def __init__(self, encoder: BriVLEncoder, data: Path, cache: Path) -> None:
        self.encoder, self._data, self._cache = encoder, data, cache
        self._texts: dict[str, np.ndarray] = {}

    def photos(self, photos: Sequence[Photo]) -> np.ndarray:
        """float32 (n, dim); the vectors of a collection are a file of the cache."""
        self._cache.mkdir(parents=True, exist_ok=True)
        of: dict[str, np.ndarray] = {}
        for collection in dict.fromkeys(photo.collection for photo in photos):
            paths = [photo.path for photo in photos if photo.collection == collection]
            file = self._cache / f"{self.encoder.fingerprint}-{collection.replace('/', '-')}-{len(paths)}.npy"
            if not file.is_file():
                print(f"embedding {len(paths):,} photos of {collection}", flush=True)
                with appearing(file) as (temporary,), temporary.open("wb") as out:
                    np.save(out, self._embed(paths).astype(np.float16))
            of |= zip(paths, np.load(file).astype(np.float32), strict=True)
        return np.stack([of[photo.path] for photo in photos])

    def _embed(self, paths: Sequence[str]) -> np.ndarray:
        spec = self.encoder.pixels
        return self._batches(load_pixels(str(self._data / path), spec) for path in paths)

    def pictures(self, pictures: Iterable[Image.Image]) -> np.ndarray:
        """float32 (n, dim) of pictures that are no files."""
        return np.concatenate([self.encoder.encode_images([picture]) for picture in pictures])

    def _batches(self, pixels: Iterable[np.ndarray]) -> np.ndarray:
        found, batch = [], []
        for one in pixels:
            batch.append(one)
            if len(batch) == _BATCH:
                found.append(self.encoder.encode_images(np.stack(batch)))
                batch = []
        if batch:
            found.append(self.encoder.encode_images(np.stack(batch)))
        return np.concatenate(found)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, dim)."""
        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        for at in range(0, len(new), 256):
            some = new[at : at + 256]
            self._texts |= zip(some, self.encoder.encode_texts(some), strict=True)
        return np.stack([self._texts[text] for text in texts])
