"""How the index is searched: how many hits, how exactly, which of them count."""

from __future__ import annotations

import math
from dataclasses import dataclass

from brivl_search.errors import UsageError
from brivl_search.search.filters import Filter

EVERYTHING = Filter()


@dataclass(frozen=True)
class SearchOptions:
    """How the index is searched; None leaves a value to the index's own tuning.

    Attributes:
        k: hits, or groups of them.
        exact: compare with every row.
        nprobe: inverted lists visited.
        rerank: candidates scored exactly.
        min_score: hits below this cosine are left out.
        min_match: hits below this probability are left out; only where one is known.
        filter: what hits must satisfy.
        alike: fold hits of at least this cosine into the best of them; None: do not.
        most_alike: so many of the rows folded into a hit are kept with it, and no more than some 10,000 rows are looked
            at: for a server, whose answers have limits; None: all.
        rerank_with: name of a matcher that re-orders the first hits; None: none does. See `search.rerank`.
        rerank_top: how many hits it re-orders; of fewer, all.
    """

    k: int = 10
    exact: bool = False
    nprobe: int | None = None
    rerank: int | None = None
    min_score: float | None = None
    min_match: float | None = None
    filter: Filter = EVERYTHING
    alike: float | None = None
    most_alike: int | None = None
    rerank_with: str | None = None
    rerank_top: int = 32

    def __post_init__(self) -> None:
        """Raises UsageError: a least value is no number that anything could be compared with, or nothing would be
        re-ordered."""
        if self.rerank_top < 1:
            raise UsageError(f"`rerank_top` {self.rerank_top}: give a whole number from 1 on")
        for name in ("min_score", "min_match", "alike"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UsageError(f"`{name}` {value:g}: give a number, such as 0.3")


DEFAULTS = SearchOptions()
