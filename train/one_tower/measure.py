"""What a matcher brings: recall of the towers alone, and after it has re-ordered the first candidates of each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brivl_search.encoders.one_tower.model import OneTower, Side
from train.one_tower.lessons import Lessons

WEIGHTS = (0.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0)
CHUNK = 64


@dataclass(frozen=True)
class Scored:
    """One direction: of each query the first candidates by the cosine.

    Attributes:
        cosines, logits: float32 (queries, top).
        right: bool (queries, top), whether a candidate is true.
    """

    cosines: np.ndarray
    logits: np.ndarray
    right: np.ndarray

    def recall(self, weight: float | None, k: int = 1) -> float:
        """R@k in percent, ordered by logit + weight · cosine; None: by the cosine alone."""
        scores = self.cosines if weight is None else self.logits + weight * self.cosines
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
                own = torch.from_numpy(self.lessons.owners[captions])[:, None] == torch.from_numpy(self.photos)[None]
                found[name] = (
                    self._direction(model, texts, images, cosines, own, swap=False),
                    self._direction(model, texts, images, cosines.T, own.T, swap=True),
                )
        return found

    def _images(self, model: OneTower) -> Side:
        parts = []
        for at in range(0, len(self.photos), CHUNK):
            rows = self.photos[at : at + CHUNK].tolist()
            parts.append(model.images(self.lessons.regions.take(rows, [0] * len(rows)), self.lessons.boxes))
        return _joined(parts)

    def _direction(
        self, model: OneTower, texts: Side, images: Side, cosines: Tensor, own: Tensor, *, swap: bool
    ) -> Scored:
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
        return Scored(best.values.numpy(), torch.cat(logits).numpy(), own.gather(1, best.indices).numpy())


def figures(scored: dict[str, tuple[Scored, Scored]], weight: float) -> dict[str, list[float]]:
    """Direction and field → R@1 of the towers, and after re-ordering."""
    names = ("t2i", "i2t")
    return {
        f"{direction} {name}": [round(one.recall(None), 1), round(one.recall(weight), 1)]
        for name, both in scored.items()
        for direction, one in zip(names, both, strict=True)
    }


def best_weight(scored: dict[str, tuple[Scored, Scored]]) -> tuple[float, float]:
    """The cosine's weight with the highest mean R@1 over fields and directions, and that mean."""
    means = {w: float(np.mean([one.recall(w) for both in scored.values() for one in both])) for w in WEIGHTS}
    weight = max(means, key=lambda w: means[w])
    return weight, means[weight]


def _joined(sides: list[Side]) -> Side:
    most = max(side.tokens.shape[1] for side in sides)
    tokens = [torch.nn.functional.pad(side.tokens, (0, 0, 0, most - side.tokens.shape[1])) for side in sides]
    masks = [torch.nn.functional.pad(side.mask, (0, most - side.mask.shape[1])) for side in sides]
    return Side(torch.cat(tokens), torch.cat(masks))
