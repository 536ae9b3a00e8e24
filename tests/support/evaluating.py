"""Evaluations for tests: an index built, a dataset folder measured, and pictures for both.

The fixture `photos` is thirty pictures for a whole module: import `photos_fixture`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.evaluation import Evaluation, EvaluationOptions, evaluate_dataset
from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import build_index
from brivl_search.metrics import Recall
from tests.support.pictures import write_corpus
from tests.support.stub import Silent

KS = (1, 5, 10)


def build(folder: Path, index: Path, encoder: Any, **options: Any) -> IndexReader:
    build_index([folder], index, encoder, BuildOptions(**{"workers": 0, **options}), Silent())
    return IndexReader.open(index)


def over_dataset(
    folder: Path, encoder: Any, fields: tuple[str, ...] | None = None, options: EvaluationOptions | None = None
) -> Evaluation:
    steps: list[int] = []
    data = load_dataset(folder, fields)
    result = evaluate_dataset(data, encoder, KS, steps.append, workers=0, options=options)
    diagonal = options is not None and options.definition == "diagonal"
    assert sum(steps) == len(data.images) + (len(data.images) if diagonal else sum(map(len, data.captions))), steps
    return result


def some(recall: Recall | None) -> Recall:
    assert recall is not None
    return recall


@pytest.fixture(scope="module", name="photos")
def photos_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures moved about by chance, so that some texts find another picture first."""
    folder = tmp_path_factory.mktemp("photos")
    write_corpus(folder, 30)
    return folder
