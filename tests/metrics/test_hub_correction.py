"""The correction for hubs: its formula, one number for equal rows, its bytes, and ranks with it."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.metrics import partner_ranks, top_lists
from brivl_search.metrics.hub_correction import DamagedCorrection, HubCorrection
from tests.support.hubs import made_pairs, unit


def test_the_formula() -> None:
    rng = np.random.default_rng(0)
    rows, references = unit(rng.standard_normal((50, 16))), unit(rng.standard_normal((30, 16))).astype(np.float16)
    found = HubCorrection(references, 0.75, 4).of(rows)
    near = np.sort(rows.astype(np.float64) @ references.astype(np.float64).T, axis=1)[:, -4:].mean(axis=1)
    assert found.dtype == np.float32 and found == pytest.approx(-0.75 * near, abs=4e-6)
    assert HubCorrection(references, 0.75, 4).of(rows[:0]).shape == (0,)


def test_equal_rows_have_equal_numbers_wherever_they_stand() -> None:
    """Else rows of one vector would be ordered by rounding, and no longer by their keys."""
    rng = np.random.default_rng(1)
    rows = unit(rng.standard_normal((700, 48))).astype(np.float16)
    correction = HubCorrection(unit(rng.standard_normal((300, 48))).astype(np.float16), 1.0, 64)
    whole = correction.of(np.concatenate([rows, rows[::-1], rows]))
    assert (whole[:700] == whole[1400:]).all() and (whole[:700] == whole[700:1400][::-1]).all()
    assert all(correction.of(rows[n : n + 1])[0] == whole[n] for n in range(0, 700, 50))


def test_bytes() -> None:
    _, images, _ = made_pairs(True, photos=20)
    correction = HubCorrection(images.astype(np.float16), 0.5, 8)
    again = HubCorrection.from_bytes(correction.to_bytes())
    assert (again.references == correction.references).all() and (again.weight, again.nearest) == (0.5, 8)
    assert again.sha256 == correction.sha256 != HubCorrection(correction.references, 0.5, 4).sha256
    too_many = HubCorrection(correction.references, 0.5, 21).to_bytes()
    for bad in (b"", b"{}", correction.to_bytes()[:-5], too_many):
        with pytest.raises(DamagedCorrection):
            HubCorrection.from_bytes(bad)


def test_ranks_and_lists_with_numbers_added() -> None:
    texts, images, owners = made_pairs(True, photos=60)
    images[7] = images[9]  # equal candidates: the lower number first
    added = HubCorrection(texts.astype(np.float16), 0.75, 16).of(images)
    truth = [[int(owner)] for owner in owners]
    scores = texts.astype(np.float64) @ images.T.astype(np.float64) + added
    order = [np.lexsort((np.arange(60), -row.round(7))).tolist() for row in scores]
    ranks = partner_ranks(texts, images, truth, added=added, block=16, candidate_block=13)
    assert ranks.ranks.tolist() == [row.index(owner) + 1 for row, owner in zip(order, owners.tolist(), strict=True)]
    numbers, values = top_lists(texts, images, 5, added=added, block=16, candidate_block=13)
    assert numbers.tolist() == [row[:5] for row in order]
    assert values == pytest.approx(np.take_along_axis(scores, numbers, 1), abs=1e-5)
    assert ranks.ranks.mean() < partner_ranks(texts, images, truth).ranks.mean()
