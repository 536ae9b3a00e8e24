"""Ranks and recall against a reference that sorts, ties and several partners included."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.metrics import ranks_exact, ranks_in_lists, summarize


def sorted_rank(scores: np.ndarray, partners: list[int]) -> int:
    """Sort all candidates by score, stably, and look where the first partner stands."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return 1 + min(order.index(partner) for partner in partners)


def integers(seed: int, rows: int, dim: int = 4) -> np.ndarray:
    """Small whole numbers: products are exact in float32, and many of them are equal."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, dim)).astype(np.float32)


def some_truth(seed: int, queries: int, candidates: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(candidates, rng.integers(1, 6), replace=False).tolist() for _ in range(queries)]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_as_a_stable_sort_gives_them(seed: int) -> None:
    queries, candidates = integers(seed, 60), integers(seed + 100, 80)
    truth = some_truth(seed, 60, 80)
    scores = queries @ candidates.T
    assert all(len(np.unique(row)) < 12 for row in scores)  # ties everywhere
    expected = [sorted_rank(row, partners) for row, partners in zip(scores, truth, strict=True)]
    found = ranks_exact(queries, candidates, truth)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("block", [1, 7, 59, 60, 61])
def test_blocks_change_nothing(block: int) -> None:
    queries, candidates, truth = integers(1, 60), integers(2, 90), some_truth(3, 60, 90)
    whole = ranks_exact(queries, candidates, truth)
    assert ranks_exact(queries, candidates, truth, block=block).tolist() == whole.tolist()


def test_ties_rank_by_number() -> None:
    candidates = np.ones((4, 1), np.float32)
    query = np.ones((1, 1), np.float32)
    assert [ranks_exact(query, candidates, [[n]])[0] for n in range(4)] == [1, 2, 3, 4]
    assert ranks_exact(query, candidates, [[3, 1]])[0] == 2  # the better placed of two equal partners


def test_any_partner_counts() -> None:
    candidates = np.array([[0.9], [0.5], [0.7], [0.1]], np.float32)
    query = np.ones((1, 1), np.float32)
    assert ranks_exact(query, candidates, [[3, 2]])[0] == 2
    assert ranks_exact(query, candidates, [[3, 2, 0]])[0] == 1
    assert ranks_exact(-query, candidates, [[0]])[0] == 4


def test_no_queries() -> None:
    assert ranks_exact(np.zeros((0, 4), np.float32), integers(0, 3), []).tolist() == []


def test_ranks_in_lists() -> None:
    lists = np.array([[5, 3, 9], [5, 3, 9], [5, 3, -1], [-1, -1, -1]])
    assert ranks_in_lists(lists, [[3, 9], [5], [9], [0]]).tolist() == [2, 1, 4, 4]


def test_lists_of_a_full_search_rank_as_the_exact_ranks_do() -> None:
    queries, candidates, truth = integers(7, 40), integers(8, 50), some_truth(9, 40, 50)
    lists = np.argsort(-(queries @ candidates.T), axis=1, kind="stable")
    expected = ranks_exact(queries, candidates, truth)
    assert ranks_in_lists(lists, truth).tolist() == expected.tolist()
    cut = ranks_in_lists(lists[:, :10], truth)
    assert cut.tolist() == np.minimum(expected, 11).tolist()


def test_summary() -> None:
    recall = summarize(np.array([1, 2, 5, 6, 100]), [1, 5, 10], candidates=200)
    assert recall.recall == {1: 20.0, 5: 60.0, 10: 80.0}
    assert (recall.median_rank, recall.queries, recall.candidates) == (5.0, 5, 200)
    assert summarize(np.array([1, 4]), [1], 9).median_rank == 2.5
