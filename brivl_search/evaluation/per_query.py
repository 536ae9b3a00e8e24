"""Every query with the ranks of its partners and what was found, as JSON lines, for looking at what goes wrong.

    {"encoder": "brivl-mini", "search": "exact", "direction": "text_to_image", "query_number": 0, "query": "一只狗",
     "partners": [{"number": 3, "what": "/photos/3.jpg", "rank": 2}],
     "top": [{"number": 8, "what": "/photos/8.jpg", "score": 0.61}, ...]}

Numbers count texts and images of the data from 0, in the order they were read. `rank` is null where a partner is not in
the list that the index gave (100 deep, or as deep as --recall-at asks). Scores are cosines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brivl_search.evaluation.pairs import DIRECTIONS, Direction
from brivl_search.evaluation.result import CORRECTED, Evaluation, Searched
from brivl_search.metrics import pair_scores, top_lists
from brivl_search.metrics.cosine import bounded

TOP = 10


def write_per_query(path: Path, evaluations: Sequence[Evaluation], top: int = TOP) -> int:
    """Writes one line for each query, direction and search of each evaluation; returns how many.

    Args:
        path: the file to write; an older one is replaced.
        evaluations: one, or several encoders'.
        top: how many of the found to name.

    Raises:
        OSError: the file cannot be written.
    """
    lines = 0
    with open(path, "wb") as file:
        for evaluation in evaluations:
            for row in per_query_rows(evaluation, top):
                try:
                    line = json.dumps(row, ensure_ascii=False).encode()
                except UnicodeEncodeError:  # a name that is not UTF-8: escapes keep it exactly
                    line = json.dumps(row).encode()
                file.write(line + b"\n")
                lines += 1
    return lines


def per_query_rows(evaluation: Evaluation, top: int = TOP) -> Iterator[dict[str, Any]]:
    """The lines of `write_per_query` as dictionaries."""
    assert evaluation.pairs is not None
    pairs = evaluation.pairs
    for name in DIRECTIONS:
        way = pairs.direction(name)
        for search, searched in evaluation.searched[name].items():
            ranks, found = searched.ranks, searched.ranks.found
            lists, scores = best_of(way, searched, top, way.lowered if search == CORRECTED else None)
            for query, partners in enumerate(way.truth):
                at = int(ranks.starts[query])
                yield {
                    "encoder": evaluation.encoder,
                    "search": search,
                    "direction": name,
                    "query_number": int(way.query_numbers[query]),
                    "query": pairs.query_label(way, query),
                    "partners": [
                        {
                            "number": number,
                            "what": pairs.candidate_label(way, number),
                            "rank": int(ranks.ranks[at + j]) if found[at + j] else None,
                        }
                        for j, number in enumerate(partners)
                    ],
                    "top": [
                        {"number": number, "what": pairs.candidate_label(way, number), "score": round(score, 6)}
                        for number, score in zip(lists[query].tolist(), scores[query].tolist(), strict=True)
                        if number >= 0
                    ],
                }


def best_of(
    way: Direction, searched: Searched, top: int, lowered: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best candidates of each query and their cosines, int64 and float32 (q, k); -1 where a list is short.

    Args:
        way: the queries and candidates.
        searched: what was found.
        top: candidates wanted.
        lowered: by which candidates' scores are corrected for hubs; None: they are not.
    """
    if searched.lists is None:
        numbers, scores = top_lists(way.queries, way.candidates, top, added=lowered)
        return numbers, bounded(scores if lowered is None else scores - lowered[numbers])
    lists = searched.lists[:, :top]
    left = np.repeat(np.arange(len(lists)), lists.shape[1])
    scores = pair_scores(way.queries, way.candidates, left, np.maximum(lists.reshape(-1), 0))
    return lists, np.where(lists < 0, -np.inf, bounded(scores).reshape(lists.shape)).astype(np.float32)
