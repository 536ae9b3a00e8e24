"""Ranks and figures against a reference that sorts, and against torchmetrics; ties and several partners included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.metrics import (
    DEFINITIONS,
    Definition,
    Ranks,
    pair_scores,
    partner_ranks,
    per_query,
    ranks_exact,
    ranks_in_lists,
    recall_curve,
    summarize,
    top_lists,
)


def sorted_ranks(scores: np.ndarray, partners: list[int]) -> list[int]:
    """Sort all candidates by score, stably, and look where the partners stand."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [1 + order.index(partner) for partner in partners]


def integers(seed: int, rows: int, dim: int = 4) -> np.ndarray:
    """Small whole numbers: products are exact in float32, and many of them are equal."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, dim)).astype(np.float32)


def units(seed: int, rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_truth(seed: int, queries: int, candidates: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(candidates, rng.integers(1, 6), replace=False).tolist() for _ in range(queries)]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_as_a_stable_sort_gives_them(seed: int) -> None:
    queries, candidates = integers(seed, 60), integers(seed + 100, 80)
    truth = some_truth(seed, 60, 80)
    scores = queries @ candidates.T
    assert all(len(np.unique(row)) < 12 for row in scores)  # ties everywhere
    expected = [sorted_ranks(row, partners) for row, partners in zip(scores, truth, strict=True)]
    found = partner_ranks(queries, candidates, truth)
    assert found.ranks.tolist() == [rank for ranks in expected for rank in ranks]
    best = ranks_exact(queries, candidates, truth)
    assert best.dtype == np.int64 and best.tolist() == [min(ranks) for ranks in expected]


@pytest.mark.parametrize("block", [1, 7, 59, 60, 61])
@pytest.mark.parametrize("candidate_block", [1, 13, 89, 90, 500])
def test_blocks_change_nothing(block: int, candidate_block: int) -> None:
    queries, candidates, truth = integers(1, 60), integers(2, 90), some_truth(3, 60, 90)
    sizes = {"block": block, "candidate_block": candidate_block}
    whole = partner_ranks(queries, candidates, truth)
    assert partner_ranks(queries, candidates, truth, **sizes).ranks.tolist() == whole.ranks.tolist()
    numbers, scores = top_lists(queries, candidates, 12)
    again = top_lists(queries, candidates, 12, **sizes)
    assert again[0].tolist() == numbers.tolist() and again[1].tolist() == scores.tolist()


def close_together(dim: int, kind: Any) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Candidates a rounding apart from each other and copies of each other, which a matrix product mixes up."""
    queries, base = units(0, 40, dim), units(1, 30, dim)
    rng = np.random.default_rng(2)
    candidates = np.concatenate([base, base, base + rng.normal(0, 2e-8, base.shape).astype(np.float32), base])
    candidates = candidates[rng.permutation(len(candidates))]
    return queries.astype(kind), candidates.astype(kind), some_truth(3, 40, len(candidates))


@pytest.mark.parametrize("dim", [3, 77, 256, 300, 2048])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_rounding_decides_nothing(dim: int, kind: Any) -> None:
    """The ranks are those of scores taken pair by pair, in whatever blocks the matrix products are made."""
    queries, candidates, truth = close_together(dim, kind)
    everyone = np.arange(len(candidates))
    scores = np.stack([pair_scores(queries, candidates, np.full(len(everyone), q), everyone) for q in range(40)])
    expected = [sorted_ranks(row, partners) for row, partners in zip(scores, truth, strict=True)]
    order = np.stack([np.lexsort((everyone, -row)) for row in scores])
    for block, candidate_block in ((1024, 16384), (1, 16384), (16, 7), (40, 64)):
        found = partner_ranks(queries, candidates, truth, block=block, candidate_block=candidate_block)
        assert found.ranks.tolist() == [rank for ranks in expected for rank in ranks]
        numbers, best = top_lists(queries, candidates, 17, block=block, candidate_block=candidate_block)
        assert (numbers == order[:, :17]).all()
        assert (best == np.take_along_axis(scores, numbers, axis=1)).all()


@pytest.mark.parametrize("dim", [3, 100, 256, 300, 2048])
def test_a_pair_has_one_score_wherever_it_stands(dim: int) -> None:
    """What the ranks rest on: equal vectors get equal scores, alone or among others, however memory is aligned."""
    queries, candidates = units(4, 3, dim), units(5, 1000, dim)
    candidates[[0, 17, 998]] = candidates[501]
    together = pair_scores(queries, candidates, np.repeat(1, 1000), np.arange(1000))
    alone = [pair_scores(queries, candidates, np.array([1]), np.array([n]))[0] for n in range(1000)]
    assert together.tolist() == alone
    assert len({float(together[n]) for n in (0, 17, 501, 998)}) == 1
    exact = candidates.astype(np.float64) @ queries[1].astype(np.float64)
    assert np.abs(together - exact).max() < 1e-6


def test_vectors_in_a_memory_map(tmp_path: Path) -> None:
    queries, candidates, truth = units(1, 50, 64), units(2, 70, 64).astype(np.float16), some_truth(3, 50, 70)
    np.save(tmp_path / "candidates.npy", candidates)
    mapped = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    found = partner_ranks(queries, mapped, truth, candidate_block=16)
    assert found.ranks.tolist() == partner_ranks(queries, candidates.astype(np.float32), truth).ranks.tolist()


def test_ties_rank_by_number() -> None:
    candidates = np.ones((4, 1), np.float32)
    query = np.ones((1, 1), np.float32)
    assert [ranks_exact(query, candidates, [[n]])[0] for n in range(4)] == [1, 2, 3, 4]
    assert ranks_exact(query, candidates, [[3, 1]])[0] == 2  # the better placed of two equal partners
    assert top_lists(query, candidates, 3)[0].tolist() == [[0, 1, 2]]


def test_any_partner_counts() -> None:
    candidates = np.array([[0.9], [0.5], [0.7], [0.1]], np.float32)
    query = np.ones((1, 1), np.float32)
    assert ranks_exact(query, candidates, [[3, 2]])[0] == 2
    assert ranks_exact(query, candidates, [[3, 2, 0]])[0] == 1
    assert ranks_exact(-query, candidates, [[0]])[0] == 4
    assert partner_ranks(query, candidates, [[3, 0, 2]]).ranks.tolist() == [4, 1, 2]  # in the order of the truth


def test_no_queries_and_no_partner() -> None:
    assert ranks_exact(np.zeros((0, 4), np.float32), integers(0, 3), []).tolist() == []
    with pytest.raises(ValueError, match="query 1 has no true partner"):
        ranks_exact(integers(0, 2), integers(0, 3), [[0], []])


def test_ranks_in_lists() -> None:
    lists = np.array([[5, 3, 9], [5, 3, 9], [5, 3, -1], [-1, -1, -1]])
    ranks = ranks_in_lists(lists, [[3, 9, 7], [5], [9], [0]], 20)
    assert ranks.first.tolist() == [2, 1, 4, 4]
    assert ranks.ranks.tolist() == [2, 3, 4, 1, 4, 4]
    assert ranks.found.tolist() == [True, True, False, True, False, False]
    assert (ranks.candidates, ranks.depth, ranks.queries) == (20, 3, 4)


def test_lists_of_a_full_search_rank_as_the_exact_ranks_do() -> None:
    queries, candidates, truth = integers(7, 40), integers(8, 50), some_truth(9, 40, 50)
    lists, _ = top_lists(queries, candidates, 50)
    assert (lists == np.argsort(-(queries @ candidates.T), axis=1, kind="stable")).all()
    exact = partner_ranks(queries, candidates, truth)
    assert ranks_in_lists(lists, truth).ranks.tolist() == exact.ranks.tolist()
    cut = ranks_in_lists(lists[:, :10], truth)
    assert cut.ranks.tolist() == np.minimum(exact.ranks, 11).tolist()


# -- figures -----------------------------------------------------------------------------------------------------


def test_summary() -> None:
    recall = summarize(np.array([1, 2, 5, 6, 100]), [1, 5, 10], candidates=200)
    assert recall.recall == {1: 20.0, 5: 60.0, 10: 80.0}
    assert (recall.median_rank, recall.queries, recall.candidates) == (5.0, 5, 200)
    assert recall.mean_rank == pytest.approx(22.8) and recall.mean_recall == pytest.approx(160 / 3)
    assert recall.mrr == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 100) / 5)
    assert summarize(np.array([1, 4]), [1], 9).median_rank == 2.5


def test_three_definitions_by_hand() -> None:
    """Two queries of two partners each: at ranks 1 and 3, and at 2 and 7."""
    ranks = Ranks(np.array([3, 1, 2, 7]), np.array([0, 2, 4]), 10)
    assert summarize(ranks, [1, 2, 3]).recall == {1: 50.0, 2: 100.0, 3: 100.0}
    assert summarize(ranks, [1, 2, 3, 7], definition="share").recall == {1: 25.0, 2: 50.0, 3: 75.0, 7: 100.0}
    assert summarize(ranks, [1]).mean_average_precision == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 7) / 2) / 2)
    single = Ranks(np.array([1, 4, 2]), np.arange(4), 10)
    assert len({tuple(summarize(single, [1, 2, 3], definition=name).recall.values()) for name in DEFINITIONS}) == 1


def test_lists_that_end_early() -> None:
    ranks = ranks_in_lists(np.array([[4, 1, 2], [4, 5, 6]]), [[1, 9], [0]], 50)
    recall = summarize(ranks, [1, 3, 10])
    assert recall.recall == {1: 0.0, 3: 50.0, 10: 50.0}  # k beyond the list finds nothing more
    assert recall.mean_rank is None  # one partner's rank is not known
    assert recall.mrr == pytest.approx(1 / 4) and recall.mean_average_precision == pytest.approx(1 / 8)
    assert summarize(ranks, [10], definition="share").recall == {10: 25.0}


@pytest.mark.parametrize("definition", ["any", "share"])
def test_curve_is_the_recall_at_every_k(definition: Definition) -> None:
    ranks = partner_ranks(integers(1, 30), integers(2, 40), some_truth(3, 30, 40))
    curve = recall_curve(ranks, definition)
    assert len(curve) == 40 and curve[-1] == 100
    for k in (1, 7, 40):
        assert curve[k - 1] == pytest.approx(summarize(ranks, [k], definition=definition).recall[k])


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_torchmetrics(seed: int) -> None:
    """Query by query against torchmetrics, on scores without ties (it does not say how it ranks them)."""
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    import torch

    queries, candidates, truth = units(seed, 40, 8), units(seed + 9, 60, 8), some_truth(seed, 40, 60)
    scores = 2 + torch.from_numpy(queries.astype(np.float64) @ candidates.T)  # its recall ignores scores below 0
    assert all(len(set(row.tolist())) == 60 for row in scores)
    ranks = partner_ranks(queries, candidates, truth)
    ks = (1, 5, 10, 60)
    hits, share = per_query(ranks, ks, "any"), per_query(ranks, ks, "share")

    def reference(function: Callable[..., Any], **options: Any) -> list[float]:
        out = []
        for row, partners in zip(scores, truth, strict=True):
            target = torch.zeros(60, dtype=torch.bool)
            target[partners] = True
            out.append(float(function(row, target, **options)))
        return out

    for j, k in enumerate(ks):
        assert hits.recall[:, j] == pytest.approx(100 * np.array(reference(retrieval.retrieval_hit_rate, top_k=k)))
        assert share.recall[:, j] == pytest.approx(100 * np.array(reference(retrieval.retrieval_recall, top_k=k)))
    assert hits.reciprocal == pytest.approx(reference(retrieval.retrieval_reciprocal_rank))
    assert hits.precision == pytest.approx(reference(retrieval.retrieval_average_precision))
    cut = per_query(ranks_in_lists(top_lists(queries, candidates, 10)[0], truth, 60), ks, "any")
    assert cut.reciprocal == pytest.approx(reference(retrieval.retrieval_reciprocal_rank, top_k=10))
