"""How strongly an encoder's scores are to be corrected for hubs, and whether that helps, on captioned photos.

The photos are split in two. α and k are chosen on one half: its captions look for its photos, and captions of the other
half are the references. What they bring is judged on the other half, with references of the first. No caption is
compared with a reference that is itself or of its own photo, as in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brivl_search.metrics import Bootstrap
from brivl_search.metrics.hub_correction import MOST_REFERENCES, HubCorrection, nearest_means

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25)
NEAREST = (1, 4, 8, 16, 32, 64, 128, 256)
AT = (1, 5, 10)
LEAST_PHOTOS = 100
SURE = 90.0  # level of the interval that must lie above 0: one-sided 95 %
_MOST_QUERIES = 5000  # of each half
_CELLS = 1 << 22  # scores held at once
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class HubFit:
    """What was found.

    Attributes:
        correction: to be kept; None: it brings nothing.
        why: that it is None, in words; "" otherwise.
        queries, photos: of the half on which it was judged.
        before, after: R@k in percent there, text → image, by k.
        gain: of the mean of R@1, R@5 and R@10, in points.
        interval: of the gain, over draws of the photos.
    """

    correction: HubCorrection | None
    why: str = ""
    queries: int = 0
    photos: int = 0
    before: dict[int, float] | None = None
    after: dict[int, float] | None = None
    gain: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """What `models calibrate --format json` prints."""
        kept = self.correction
        return {
            "kept": kept is not None,
            "why_not": self.why or None,
            "weight": kept.weight if kept else None,
            "nearest": kept.nearest if kept else None,
            "references": len(kept.references) if kept else None,
            "queries": self.queries,
            "photos": self.photos,
            "before": _named(self.before),
            "after": _named(self.after),
            "gain": round(self.gain, 3),
            "interval": [round(self.interval[0], 3), round(self.interval[1], 3)],
        }


def fit_hubs(texts: np.ndarray, images: np.ndarray, owners: np.ndarray, seed: int = 0) -> HubFit:
    """Chooses α and k on half of the photos with their captions, and judges them on the other half.

    Args:
        texts: float32 (n, dim), unit length.
        images: float32 (m, dim), unit length.
        owners: int (n,), the image of each text.
        seed: of the split.
    """
    if len(images) < LEAST_PHOTOS:
        return HubFit(None, f"{len(images):,} photos are too few to tell: it takes {LEAST_PHOTOS}")
    rng = np.random.default_rng(seed)
    side = np.zeros(len(images), np.int64)
    side[rng.permutation(len(images))[: len(images) // 2]] = 1
    halves = [_Half(texts, images, owners, side, number, rng) for number in (0, 1)]
    size = min(MOST_REFERENCES, *(len(half.own) for half in halves))
    first, second = [_some(half.own, size, rng) for half in halves]
    counts = tuple(k for k in NEAREST if k <= size)
    grid = [(weight, at) for at in range(len(counts)) for weight in WEIGHTS]
    near = halves[0].near(second, counts)
    means = halves[0].found([-weight * near[:, at] for weight, at in grid]).mean(axis=(1, 2))
    best = int(np.argmax(means))  # of equal ones the first: no correction, then the weakest
    weight, k = (0.0, 1) if not best else (grid[best - 1][0], counts[grid[best - 1][1]])
    judge = halves[1]
    plain, corrected = judge.found([-weight * judge.near(first, (k,))[:, 0]])
    gains = 100 * (corrected - plain).mean(axis=1)
    _, cluster = np.unique(judge.owners, return_inverse=True)
    bootstrap = Bootstrap(SURE, seed=seed)
    draws = bootstrap.means(gains[:, None], cluster.astype(np.int64), int(cluster.max()) + 1)[:, 0]
    interval = bootstrap.interval(draws)
    kept: HubCorrection | None = None
    why = ""
    if not weight:
        why = "no correction finds more on the half on which it was chosen"
    elif interval[0] <= 0:
        why = f"its gain on photos it was not chosen on, {gains.mean():+.1f} points, may be chance"
    else:
        kept = HubCorrection(_some(texts, size, rng).astype(np.float16), weight, k)
    return HubFit(
        kept,
        why,
        len(judge.queries),
        len(judge.images),
        _recall(plain),
        _recall(corrected),
        float(gains.mean()),
        interval,
    )


class _Half:
    """Half of the photos, their captions as queries, and all of these as references for the other half."""

    def __init__(
        self,
        texts: np.ndarray,
        images: np.ndarray,
        owners: np.ndarray,
        side: np.ndarray,
        number: int,
        rng: np.random.Generator,
    ) -> None:
        mine = np.flatnonzero(side == number)
        place = np.full(len(images), -1)
        place[mine] = np.arange(len(mine))
        self.images = np.ascontiguousarray(images[mine], np.float32)
        ours = np.flatnonzero(side[owners] == number)
        self.own = texts[ours]
        asked = ours if len(ours) <= _MOST_QUERIES else np.sort(rng.choice(ours, _MOST_QUERIES, replace=False))
        self.queries = np.ascontiguousarray(texts[asked], np.float32)
        self.owners = place[owners[asked]]

    def near(self, references: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
        """float64 (photos, len(counts)): how near each photo is to its nearest references."""
        parts = [
            nearest_means(self.images[at : at + _ROWS], references, counts) for at in range(0, len(self.images), _ROWS)
        ]
        return np.concatenate(parts)

    def found(self, added: Sequence[np.ndarray]) -> np.ndarray:
        """Whether each query's photo is among the k best.

        Args:
            added: to every photo's score, (photos,); one of these after another.

        Returns:
            float64 (1 + len(added), queries, len(AT)), first of the scores as they are.
        """
        ahead = np.empty((1 + len(added), len(self.queries)), np.int64)
        step = max(1, _CELLS // len(self.images))
        for at in range(0, len(self.queries), step):
            products = self.queries[at : at + step] @ self.images.T
            own = self.owners[at : at + step, None]
            for number, more in enumerate([np.zeros(1), *added]):
                scores = products + more.astype(np.float32)
                ahead[number, at : at + step] = (scores > np.take_along_axis(scores, own, 1)).sum(axis=1)
        return (ahead[:, :, None] < np.asarray(AT)).astype(np.float64)


def _some(texts: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return texts if len(texts) <= size else texts[np.sort(rng.choice(len(texts), size, replace=False))]


def _recall(found: np.ndarray) -> dict[int, float]:
    return {k: float(100 * value) for k, value in zip(AT, found.mean(axis=0), strict=True)}


def _named(recall: dict[int, float] | None) -> dict[str, float] | None:
    return None if recall is None else {f"R@{k}": round(value, 3) for k, value in recall.items()}
