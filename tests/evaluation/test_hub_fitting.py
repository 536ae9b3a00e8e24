"""What a correction for hubs brings, judged on photos on which it was not chosen."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.evaluation.hub_fitting import fit_hubs
from brivl_search.metrics import ranks_exact
from tests.support.hubs import made_pairs


@pytest.mark.parametrize("seed", [0, 1])
def test_hubs_are_found_and_recall_rises(seed: int) -> None:
    found = fit_hubs(*made_pairs(True, seed))
    assert found.correction is not None and found.before is not None and found.after is not None
    assert found.gain > 3 and found.interval[0] > 1 and not found.why
    assert (found.queries, found.photos) == (600, 200)
    assert found.after[1] > found.before[1] + 3 and found.after[10] > found.before[10]
    texts, images, owners = made_pairs(True, seed + 100)  # of the same kind, never seen
    truth = [[int(owner)] for owner in owners]
    lowered = np.concatenate([images, found.correction.of(images)[:, None]], axis=1)
    asked = np.concatenate([texts, np.ones((len(texts), 1), np.float32)], axis=1)
    before, after = (ranks_exact(*both, truth) for both in ((texts, images), (asked, lowered)))
    assert (after == 1).mean() > (before == 1).mean() + 0.03


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_kept_where_there_are_no_hubs(seed: int) -> None:
    found = fit_hubs(*made_pairs(False, seed))
    assert found.correction is None and ("may be chance" in found.why or "no correction finds more" in found.why)
    assert abs(found.gain) < 1 and found.to_dict()["kept"] is False and found.to_dict()["weight"] is None


def test_too_few_photos() -> None:
    found = fit_hubs(*made_pairs(True, photos=99))
    assert found.correction is None and "99 photos are too few" in found.why and found.before is None


def test_nobodys_own_captions_are_references() -> None:
    """What is chosen and judged does not change when the captions of a photo are put in another order."""
    texts, images, owners = made_pairs(True)
    order = np.random.default_rng(5).permutation(len(texts))
    one, other = fit_hubs(texts, images, owners), fit_hubs(texts[order], images, owners[order])
    assert one.before == other.before and one.after == pytest.approx(other.after, abs=1e-9)
