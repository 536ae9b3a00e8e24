"""Published figures of known encoders."""

from __future__ import annotations

from brivl_search.encoders.known import KNOWN


def test_every_figure_has_a_source_and_makes_sense() -> None:
    names = [model.name for model in KNOWN]
    assert len(set(names)) == len(names)
    for model in KNOWN:
        assert model.languages and model.dim >= 256
        for figure in model.figures:
            assert figure.source and figure.test
            assert list(figure.recall) == sorted(figure.recall)
            values = [*figure.recall, *([figure.mean_recall] if figure.mean_recall else [])]
            assert values and all(0 < value < 100 for value in values)
