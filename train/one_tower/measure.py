"""What a matcher brings: recall of the towers alone, and after it has re-ordered the first candidates of each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brivl_search.encoders.one_tower.model import OneTower, Side
from train.one_tower.lessons import Lessons

COSINES = (0.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0)
HUBS = (0.0, 0.5, 1.0)
CHUNK = 64


@dataclass(frozen=True)
class Weights:
    """A pair's score: its logit + cosine · the towers' cosine − hubs · what both sides score with the bank."""

    cosine: float = 0.0
    hubs: float = 0.0


@dataclass(frozen=True)
class Scored:
    """One direction: of each query the first candidates by the cosine.

    Attributes:
        cosines, logits: float32 (queries, top).
        hubs: float32 (queries, top), what the candidate scores with the bank; 0 without one.
        right: bool (queries, top), whether a candidate is true.
    """

    cosines: np.ndarray
    logits: np.ndarray
    hubs: np.ndarray
    right: np.ndarray

    def recall(self, weights: Weights | None, k: int = 1) -> float:
        """R@k in percent, in the order of `weights`; None: of the cosine alone."""
        scores = self.cosines
        if weights is not None:
            scores = self.logits + weights.cosine * self.cosines - weights.hubs * self.hubs
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return 100 * float(np.take_along_axis(self.right, order, 1).any(1).mean())


class Measure:
    """The candidates of a part's queries, found once: the towers stay as they are."""

    def __init__(
        self, lessons: Lessons, part: str, fields: Sequence[str], each: int, top: int, most: int = 500
    ) -> None:
        """Finds them.

        Args:
            lessons: photos and vectors.
            part: which photos.
            fields: of the captions that ask, and that are searched.
            each: captions of a photo in a field.
            top: candidates of each query.
            most: photos, from the first.
        """
        self.lessons, self.photos = lessons, np.array(lessons.parts[part][:most])
        self.name, self.fields = part, list(fields)
        captions = [[c for p in self.photos for c in lessons.of(p, f)[:each]] for f in fields]
        self.captions = [np.array(some) for some in captions]
        images = lessons.image_vectors()[self.photos]
        self.cosines = [lessons.text_vectors(some) @ images.T for some in self.captions]
        self.top = min(top, len(self.photos))

    @torch.inference_mode()
    def scored(self, model: OneTower, *, bf16: bool) -> dict[str, tuple[Scored, Scored]]:
        """Field → text to image, image to text."""
        model.eval()
        found = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            images = self._images(model)
            for name, captions, cosines in zip(self.fields, self.captions, self.cosines, strict=True):
                if not len(captions):
                    continue
                texts = _joined(
                    [
                        model.texts(*self.lessons.tokens(captions[at : at + CHUNK]))
                        for at in range(0, len(captions), CHUNK)
                    ]
                )
                hubs = torch.zeros(len(self.photos)), torch.zeros(len(captions))
                if model.bank is not None:
                    hubs = model.image_hubs(images).float(), model.text_hubs(texts).float()
                own = torch.from_numpy(self.lessons.owners[captions])[:, None] == torch.from_numpy(self.photos)[None]
                found[name] = (
                    self._direction(model, (texts, images), cosines, own, hubs[0], swap=False),
                    self._direction(model, (texts, images), cosines.T, own.T, hubs[1], swap=True),
                )
        return found

    def _images(self, model: OneTower) -> Side:
        parts = []
        for at in range(0, len(self.photos), CHUNK):
            rows = self.photos[at : at + CHUNK].tolist()
            parts.append(model.images(self.lessons.regions.take(rows, [0] * len(rows)), self.lessons.boxes))
        return _joined(parts)

    def _direction(
        self, model: OneTower, pairs: tuple[Side, Side], cosines: Tensor, own: Tensor, hubs: Tensor, *, swap: bool
    ) -> Scored:
        texts, images = pairs
        best = cosines.topk(min(self.top, cosines.shape[1]), 1)
        logits = []
        for at in range(0, len(cosines), CHUNK // 2):
            there = best.indices[at : at + CHUNK // 2]
            asking = torch.arange(at, at + len(there))[:, None].expand_as(there)
            sides = (there, asking) if swap else (asking, there)
            text_at, image_at = (side.flatten() for side in sides)
            used_texts, text_row = text_at.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            used_images, image_row = image_at.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            found = model.logits(texts.rows(used_texts), images.rows(used_images), text_row, image_row)
            logits.append(found.view(there.shape))
        found_hubs = hubs[best.indices].numpy()
        return Scored(best.values.numpy(), torch.cat(logits).numpy(), found_hubs, own.gather(1, best.indices).numpy())


def figures(scored: dict[str, tuple[Scored, Scored]], weights: Weights) -> dict[str, list[float]]:
    """Direction and field → R@1 of the towers, and after re-ordering."""
    names = ("t2i", "i2t")
    return {
        f"{direction} {name}": [round(one.recall(None), 1), round(one.recall(weights), 1)]
        for name, both in scored.items()
        for direction, one in zip(names, both, strict=True)
    }


def best_weights(scored: dict[str, tuple[Scored, Scored]]) -> tuple[Weights, float]:
    """Those with the highest mean R@1 over fields and directions, and that mean."""
    hubs = HUBS if any(one.hubs.any() for both in scored.values() for one in both) else (0.0,)
    every = [Weights(cosine, share) for share in hubs for cosine in COSINES]
    means = {w: float(np.mean([one.recall(w) for both in scored.values() for one in both])) for w in every}
    best = max(means, key=lambda w: means[w])
    return best, means[best]


def _joined(sides: list[Side]) -> Side:
    most = max(side.tokens.shape[1] for side in sides)
    tokens = [torch.nn.functional.pad(side.tokens, (0, 0, 0, most - side.tokens.shape[1])) for side in sides]
    masks = [torch.nn.functional.pad(side.mask, (0, most - side.mask.shape[1])) for side in sides]
    return Side(torch.cat(tokens), torch.cat(masks))
