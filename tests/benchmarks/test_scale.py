"""The arithmetic of `benchmarks/scale_model.py`, and what `scale.py` makes of measurements."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("scale")
    finally:
        sys.path.remove(str(BENCHMARKS))


def model(scale: ModuleType) -> tuple[object, object]:
    costs = scale.Costs(1e-5, 1e-10, 1e-7, 1e-10, 1e-9, 2.0, 1e-4, 1e-5, 1e-11, 32.0, 400.0, 300.0)
    return costs, scale.Plan(8_000_000, 256, 1024, 16, 100, shard_rows=1_000_000)


def test_work_is_the_sum_of_its_parts(scale: ModuleType) -> None:
    costs, plan = model(scale)
    each = 1e-5 + 1e-10 * 1024 * 256 + 1e-7 * 16 + 1e-9 * 100 * 256
    assert scale.work(costs, plan, 8, plan.rows) == pytest.approx(8 * each + 1e-10 * 32 * 8e6 * 16 / 1024)


def test_searchers_share_the_shards_and_the_slowest_counts(scale: ModuleType) -> None:
    costs, plan = model(scale)
    gather = 1e-4
    alone = scale.query_seconds(costs, plan) - gather
    assert alone == pytest.approx(scale.work(costs, plan, 8, plan.rows))
    assert scale.query_seconds(costs, plan, 0.99) - gather == pytest.approx(2 * alone)
    four = scale.query_seconds(costs, replace(plan, searchers=4)) - 4 * gather
    assert alone / 4 < four < 2 * alone / 4  # a quarter of the work, and the slowest of four
    assert scale.query_seconds(costs, replace(plan, searchers=4, cores=1)) > alone
    assert scale.query_seconds(costs, replace(plan, load=0.5)) - gather == pytest.approx(2 * alone)


def test_shards_hold_what_lmdb_holds(scale: ModuleType) -> None:
    assert scale.Plan(10**9, 256, 8192, 64, 200).shards == 120
    assert scale.Plan(10**9, 512, 8192, 64, 200).shards == 239
    assert scale.Plan(5, 512, 8192, 64, 200).shards == 1


def test_fit_finds_costs_and_none_below_zero(scale: ModuleType) -> None:
    rng = np.random.default_rng(0)
    cases = rng.uniform(1, 10, (40, 5))
    true = np.array([1.0, 0.5, 0.0, 2.0, 0.1])
    found = scale.fit(cases.tolist(), (cases @ true).tolist())
    assert np.allclose(found, true, atol=1e-6)
    noisy = scale.fit(cases.tolist(), (cases @ true * rng.uniform(0.8, 1.2, 40)).tolist())
    assert (noisy >= 0).all()


def test_the_committed_costs_make_the_tables_of_the_docs(
    scale: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (BENCHMARKS.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["scale.py", "tables"])
    assert scale.main() == 0
    assert capsys.readouterr().out.strip() in page


def test_searchers_answer_over_pipes(scale: ModuleType, tmp_path: Path) -> None:
    scale_rows = 3_000
    directory = scale.index_of(tmp_path, scale_rows, scale_rows // 2)
    searchers = scale.Searchers(directory, 2, 2)
    try:
        best = searchers.search(scale.queries_of(scale_rows)[:1], scale.Tuning(8, 50))
    finally:
        searchers.close()
    reader = scale.IndexReader.open(directory)
    alone = scale.search(scale.parts_of(reader), scale.queries_of(scale_rows)[:1], scale.K, scale.Tuning(8, 50))
    reader.close()
    assert np.array_equal(best, alone.scores)
