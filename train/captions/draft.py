"""Captions of a part's photos from cached regions, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from brivl_search.encoders.captioning import Draft, ranked
from brivl_search.encoders.captions.beam import Search, search
from brivl_search.encoders.captions.model import Captioner
from brivl_search.encoders.captions.words import Words
from train.captions.score import figures
from train.one_tower.lessons import Lessons

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
CHUNK = 50
All = dict[str, list[list[Draft]]]
"""Language → drafts of each photo, best first."""


@dataclass
class Measure:
    """A part's photos with references in each language.

    Attributes:
        lessons: photos and regions.
        part: which photos.
        fields: caption fields that are references, the language's own names ("zh", "en"); empty: those of the two that
            the photos have.
        most: photos, from the first.
    """

    lessons: Lessons
    part: str
    fields: Sequence[str] = ()
    most: int = 500
    photos: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.photos = self.lessons.parts[self.part][: self.most]
        has = {name for photo in self.photos for name in self.lessons.photos[photo].captions}
        self.fields = [name for name in (self.fields or ("zh", "en")) if name in has]
        if not self.fields:
            self.photos = []

    def references(self, name: str) -> tuple[list[int], list[list[str]]]:
        """Places in `photos` of those with captions in this field, and these captions."""
        texts = [self.lessons.photos[photo].captions.get(name, []) for photo in self.photos]
        at = [place for place, some in enumerate(texts) if some]
        return at, [texts[place] for place in at]

    @torch.inference_mode()
    def drafts(self, model: Captioner, words: Words, beams: int, *, bf16: bool) -> All:
        """Captions of the plain pictures in each language."""
        config, out = model.config, dict[str, list[list[Draft]]]()
        how = Search(beams, config.length_power, config.no_repeat, config.max_length - 1)
        vectors = self.lessons.image_vectors()
        for name in self.fields:
            out[name] = []
            for at in range(0, len(self.photos), CHUNK):
                rows = self.photos[at : at + CHUNK]
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    features = self.lessons.regions.take(rows, [0] * len(rows))
                    memory = model.look(features, self.lessons.boxes, vectors[rows])
                    found = search(model, memory, config.starts.index(name), how)
                out[name] += [[Draft(words.text(one.words), one.score) for one in some] for some in found]
        return out

    def cosines(self, drafts: All) -> dict[str, list[np.ndarray]]:
        """The towers' cosine of each draft with its photo."""
        encoder, vectors = self.lessons.encoder, self.lessons.image_vectors().numpy()
        out = {}
        for name, photos in drafts.items():
            texts = [one.text for some in photos for one in some]
            found = np.split(encoder.encode_texts(texts), np.cumsum([len(some) for some in photos])[:-1])
            out[name] = [said @ vectors[photo] for said, photo in zip(found, self.photos, strict=True)]
        return out

    def figures(
        self, drafts: All, cosines: dict[str, list[np.ndarray]] | None = None, weight: float = 0.0
    ) -> dict[str, dict[str, float]]:
        """Language → figures of each photo's first caption, ordered by score + weight · cosine."""
        out = {}
        for name, photos in drafts.items():
            at, true = self.references(name)
            said = []
            for place in at:
                beside = cosines[name][place] if cosines else np.zeros(len(photos[place]), np.float32)
                best = ranked(photos[place], beside, weight)
                said.append(photos[place][best[0]].text if best else "")
            out[name] = figures(said, true, name)
        return out


def best_weight(measure: Measure, drafts: All) -> tuple[float, dict[str, float]]:
    """The cosine's weight with the highest mean CIDEr over languages, and that mean for each that was tried."""
    cosines = measure.cosines(drafts)
    tried = {
        f"{weight:g}": float(np.mean([one["CIDEr"] for one in measure.figures(drafts, cosines, weight).values()]))
        for weight in WEIGHTS
    }
    return float(max(tried, key=lambda one: tried[one])), tried
