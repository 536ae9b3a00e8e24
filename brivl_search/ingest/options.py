"""What may be chosen of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brivl_search.corpus.images import MAX_MEGAPIXELS
from brivl_search.corpus.sources import DatasetChoice
from brivl_search.index import Codec, IndexType


@dataclass(frozen=True)
class BuildOptions:
    """Choices of one build; the defaults are the command line's.

    `dataset` says how the paths are read that are datasets, `known_datasets` (by absolute path) goes before it.
    """

    index_type: IndexType | None = None
    include_hidden: bool = False
    workers: int | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    decode_timeout_s: float = 60.0
    caption_fields: tuple[str, ...] | None = None
    batch_size: int = 64
    shard_rows: int | None = None
    codec: Codec | None = None
    memory: int | None = None
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    encoding: str | None = None  # of caption files; None: UTF-8
    known_datasets: Mapping[str, DatasetChoice] = field(default_factory=dict)
