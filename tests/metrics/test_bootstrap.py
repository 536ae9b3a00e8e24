"""Bootstrap intervals: they are what they say, they cover, and captions of one image are drawn together."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.metrics import Bootstrap, Ranks, per_query


def singles(values: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    return bootstrap.means(values[:, None].astype(np.float64), np.arange(len(values)), len(values))[:, 0]


def test_seeded() -> None:
    values = np.random.default_rng(0).normal(size=50)
    one = singles(values, Bootstrap(seed=1))
    assert (one == singles(values, Bootstrap(seed=1))).all() and (one != singles(values, Bootstrap(seed=2))).any()
    assert len(singles(values, Bootstrap(resamples=37))) == 37


def test_draws_do_not_depend_on_the_memory_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    values, cluster = np.random.default_rng(0).integers(1, 90, 60), np.arange(60) // 3
    before = Bootstrap().means(values[:, None] * 1.0, cluster, 20), Bootstrap().medians(values, cluster, 20)
    monkeypatch.setattr("brivl_search.metrics.bootstrap._CELLS", 100)
    after = Bootstrap().means(values[:, None] * 1.0, cluster, 20), Bootstrap().medians(values, cluster, 20)
    assert before[0] == pytest.approx(after[0]) and (before[1] == after[1]).all()


def test_means_and_medians_are_those_of_drawn_groups() -> None:
    rng = np.random.default_rng(3)
    values, cluster = rng.integers(1, 40, 25), np.sort(rng.integers(0, 6, 25))
    cluster[:6] = np.arange(6)
    bootstrap = Bootstrap(resamples=50, seed=4)
    means, medians = bootstrap.means(values[:, None] * 1.0, cluster, 6)[:, 0], bootstrap.medians(values, cluster, 6)
    draws = np.random.default_rng(4)
    for mean, median in zip(means, medians, strict=True):
        drawn = np.concatenate([values[cluster == group] for group in draws.integers(6, size=6)])
        assert mean == pytest.approx(drawn.mean()) and median == np.median(drawn)


def test_the_interval_is_about_the_textbook_s() -> None:
    """For a share p of n independent queries: p ± 1.96 sqrt(p (1 - p) / n)."""
    hits = (np.arange(400) < 120) * 100.0
    low, high = Bootstrap(resamples=4000).interval(singles(hits, Bootstrap(resamples=4000)))
    half = 1.96 * 100 * np.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == pytest.approx((30 - half, 30 + half), abs=0.5)
    narrow = Bootstrap(50).interval(singles(hits, Bootstrap(50)))
    assert low < narrow[0] < 30 < narrow[1] < high


def test_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    bootstrap = Bootstrap(90, resamples=300)
    covered = 0
    for _ in range(200):
        low, high = bootstrap.interval(singles(rng.random(150) < 0.4, bootstrap))
        covered += low <= 0.4 <= high
    assert 0.83 <= covered / 200 <= 0.96


def test_captions_of_one_image_are_drawn_together() -> None:
    """Five captions that succeed or fail alike say no more than one: the interval is that of the images."""
    hits = np.repeat(np.arange(100) < 40, 5) * 100.0
    cluster = np.repeat(np.arange(100), 5)
    bootstrap = Bootstrap(resamples=2000)
    grouped = bootstrap.interval(bootstrap.means(hits[:, None], cluster, 100)[:, 0])
    images = bootstrap.interval(singles(hits[::5], bootstrap))
    alone = bootstrap.interval(singles(hits, bootstrap))
    assert grouped == pytest.approx(images)
    assert (grouped[1] - grouped[0]) > 2 * (alone[1] - alone[0])


def test_all_figures_have_samples() -> None:
    ranks = Ranks(np.array([1, 3, 2, 9, 4, 1]), np.array([0, 2, 3, 6]), 10)
    samples = per_query(ranks, (1, 5)).samples(Bootstrap(resamples=20), np.arange(3), 3)
    assert set(samples) == {"R@1", "R@5", "median_rank", "mean_rank", "MRR", "mAP", "mean_recall"}
    assert samples["mean_recall"] == pytest.approx((samples["R@1"] + samples["R@5"]) / 2)
    cut = Ranks(np.array([1, 4, 2]), np.arange(4), 10, depth=3)
    assert "mean_rank" not in per_query(cut, (1,)).samples(Bootstrap(resamples=20), np.arange(3), 3)
