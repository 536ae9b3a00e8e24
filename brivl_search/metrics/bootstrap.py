"""Confidence intervals by the percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13).

Groups of queries are drawn again, with replacement. A group is an image and all of its captions. They look for the
same picture and succeed or fail alike, so five captions are no five independent observations. Drawn singly, they would
give intervals that are too narrow. This is the cluster bootstrap (Davison & Hinkley, Bootstrap Methods and their
Application, section 3.8). The candidates stay what they are. So an interval says how far another draw of queries would
move a figure over this collection, not what a larger collection would do.

Draws depend on the seed and on the number of groups alone. So both directions of one evaluation, and two encoders on
the same data, see the same draws: their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CELLS = 1 << 22  # counts held at once


@dataclass(frozen=True)
class Bootstrap:
    """How to draw.

    Attributes:
        level: of the interval, in percent.
        resamples: how many draws.
        seed: of the draws.
    """

    level: float = 95.0
    resamples: int = 1000
    seed: int = 0

    def means(self, values: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
        """float64 (resamples, s): means over the queries of each draw.

        Args:
            values: float64 (q, s).
            cluster: int64 (q,), the group of each query, 0 to clusters - 1.
            clusters: how many groups; each has a query.
        """
        sums = np.stack([np.bincount(cluster, column, clusters) for column in values.T], axis=1)
        sizes = np.bincount(cluster, minlength=clusters).astype(np.float64)
        parts = [(drawn @ sums) / (drawn @ sizes)[:, None] for drawn in self._draws(clusters)]
        return np.concatenate(parts)

    def medians(self, values: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
        """float64 (resamples,): medians over the queries of each draw; `values` is (q,), the rest as in `means`."""
        order = np.argsort(values, kind="stable")
        ordered, group = values[order], cluster[order]
        out = []
        for drawn in self._draws(clusters):
            for times in drawn:
                upto = np.cumsum(times[group])
                middle = np.searchsorted(upto, [(upto[-1] - 1) // 2, upto[-1] // 2], side="right")
                out.append(ordered[middle].mean())
        return np.asarray(out, dtype=np.float64)

    def interval(self, samples: np.ndarray) -> tuple[float, float]:
        """(low, high) of a figure's draws, (resamples,)."""
        tail = (100 - self.level) / 2
        low, high = np.percentile(samples, [tail, 100 - tail])
        return float(low), float(high)

    def _draws(self, clusters: int) -> Iterator[np.ndarray]:
        """float64 (b, clusters): how often each group is in each draw."""
        rng = np.random.default_rng(self.seed)
        step = max(1, min(self.resamples, _CELLS // max(1, clusters)))
        for at in range(0, self.resamples, step):
            count = min(step, self.resamples - at)
            drawn = (np.bincount(rng.integers(clusters, size=clusters), minlength=clusters) for _ in range(count))
            yield np.stack(list(drawn)).astype(np.float64)
