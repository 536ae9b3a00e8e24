"""How well texts find images and images find texts: an index over its own caption pairs, or an encoder over a dataset.

dataset      embeds a dataset and ranks all against all
index        ranks what an index holds, exactly and as the index answers, and times it
pairs        what is compared: vectors, and which belong together
reordered    the lists after a matcher has re-ordered the first of each
result       Evaluation: the figures, and the ranks they come from
comparison   encoders side by side on the same data
per_query    every query's ranks as JSON lines
predictions  files that Chinese-CLIP's public scripts score
calibrating  from cosines to probabilities, and whether hubs are worth correcting (hub_fitting)
speed        images/s, texts/s, memory and start of encoders, each in a process of its own
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brivl_search.evaluation.comparison import Comparison, Difference, compare
    from brivl_search.evaluation.dataset import evaluate_dataset
    from brivl_search.evaluation.index import LIST_DEPTH, evaluate_index
    from brivl_search.evaluation.pairs import DIRECTIONS, Direction, DirectionName, Pairs
    from brivl_search.evaluation.per_query import write_per_query
    from brivl_search.evaluation.predictions import write_predictions
    from brivl_search.evaluation.result import Evaluation, EvaluationOptions, Latency, parse_ks

__all__ = [
    "DIRECTIONS",
    "LIST_DEPTH",
    "Comparison",
    "Difference",
    "Direction",
    "DirectionName",
    "Evaluation",
    "EvaluationOptions",
    "Latency",
    "Pairs",
    "compare",
    "evaluate_dataset",
    "evaluate_index",
    "parse_ks",
    "write_per_query",
    "write_predictions",
]

_HOME = {
    "Comparison": "comparison",
    "DIRECTIONS": "pairs",
    "Difference": "comparison",
    "Direction": "pairs",
    "DirectionName": "pairs",
    "Evaluation": "result",
    "EvaluationOptions": "result",
    "LIST_DEPTH": "index",
    "Latency": "result",
    "Pairs": "pairs",
    "compare": "comparison",
    "evaluate_dataset": "dataset",
    "evaluate_index": "index",
    "parse_ks": "result",
    "write_per_query": "per_query",
    "write_predictions": "predictions",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: training uses parts of this room on machines without lmdb and faiss."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
