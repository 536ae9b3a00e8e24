"""Retrieval figures: exact ranks of true partners, what is computed from them, and how sure the figures are.

ranks      ranks of true partners among all candidates, or in result lists; exact top-k lists
figures    R@k by three definitions, median and mean rank, MRR, mAP
bootstrap  confidence intervals, over groups of queries that belong together
hub_correction  what lowers the scores of candidates that every query finds
"""

from brivl_search.metrics.bootstrap import Bootstrap
from brivl_search.metrics.figures import (
    DEFINITION,
    DEFINITIONS,
    Definition,
    PerQuery,
    Recall,
    per_query,
    recall_curve,
    summarize,
)
from brivl_search.metrics.ranks import Ranks, pair_scores, partner_ranks, ranks_exact, ranks_in_lists, top_lists

__all__ = [
    "DEFINITION",
    "DEFINITIONS",
    "Bootstrap",
    "Definition",
    "PerQuery",
    "Ranks",
    "Recall",
    "pair_scores",
    "partner_ranks",
    "per_query",
    "ranks_exact",
    "ranks_in_lists",
    "recall_curve",
    "summarize",
    "top_lists",
]
