"""What may be chosen of a build."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from brivl_search.corpus.sources import DatasetChoice
from brivl_search.errors import UsageError
from brivl_search.index import Codec, IndexType


@dataclass(frozen=True)
class BuildOptions:
    """Choices of one build; the defaults are the command line's.

    Attributes:
        include_hidden, exclude, caption_fields, encoding, max_megapixels: how roots are read; `encoding` is that of
            caption files. None: as the index remembers of each root. What is given is remembered from then on.
        dataset: how the paths are read that are datasets; if nothing is chosen, as the index remembers of each.
        moves: (old, new) places of roots that moved.
        keep_regions: the matcher whose regions the index keeps from now on, "none" for none; None: as the index does.
    """

    index_type: IndexType | None = None
    include_hidden: bool | None = None
    exclude: tuple[str, ...] | None = None
    workers: int | None = None
    max_megapixels: float | None = None
    decode_timeout_s: float = 60.0
    caption_fields: tuple[str, ...] | None = None
    batch_size: int = 64
    shard_rows: int | None = None
    codec: Codec | None = None
    memory: int | None = None
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    encoding: str | None = None
    moves: tuple[tuple[str, str], ...] = ()
    keep_regions: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError: a limit that no index could remember."""
        if self.max_megapixels is not None and not 0 < self.max_megapixels < math.inf:
            raise UsageError(f"`max_megapixels` {self.max_megapixels:g}: give a number of megapixels, such as 1000")
