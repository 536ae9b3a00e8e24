"""What a commit will do to one modality, and when shards are merged, quantizers trained and searches tuned anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from .types import ShardInfo

MERGE_ROWS = 20_000  # a last shard up to this size is merged whatever the number of new rows
MERGE_RATIO = 4  # and up to this multiple of the new rows, so that rows are rewritten O(log) times
RETUNE_SHARE = 0.1  # a measured recall stands until this share of the rows came or went
RETRAIN_RATIO = 4  # lists wanted / lists there are, from which on the quantizer is trained anew
COMPACT_RATIO = 2  # the same when compacting, which rewrites everything anyway
DRIFT = 1.1  # rows' coding error / that of the training rows, from which on compacting trains the quantizer anew
DRIFT_SAMPLE = 4096


@dataclass
class Plan:
    """What a commit does to one modality.

    Attributes:
        removed: shard seq -> rows that stop counting with this commit.
        new: staged items that need a row.
        kept: staged keys that need none: nothing but the file's size or mtime changed, if that.
        touched: those of `kept` whose size or mtime changed.
        gone: staged keys whose item is removed.
        merge: shards to be rewritten.
        drop: shards without a live row.
    """

    removed: dict[int, set[int]] = field(default_factory=dict)
    new: int = 0
    kept: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    merge: list[ShardInfo] = field(default_factory=list)
    drop: list[ShardInfo] = field(default_factory=list)
    live: int = 0
    train: bool = False
    ivfpq: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        return bool(self.removed or self.new or self.touched or self.merge or self.drop)
