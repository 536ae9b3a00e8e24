"""What a search answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from brivl_search.index import Modality


@dataclass(frozen=True)
class Hit:
    """One answer.

    Attributes:
        rank: from 1.
        score: cosine between query and row.
        kind: "image" or "text".
        path: the image's; for a caption its own image's.
        text: the caption, None for an image.
        record: all that the index keeps of it.
        match: the probability that text and picture belong together; None where the encoder knows none, between two
            pictures or two texts, and for sums of several.
        duplicates: near-identical hits that were folded into this one, best first.
        key: of the item in the index.
    """

    rank: int
    score: float
    kind: Modality
    path: str
    text: str | None = None
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    match: float | None = None
    duplicates: tuple[Hit, ...] = ()
    key: str = field(default="", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What `--format jsonl` prints."""
        row: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6)}
        if self.match is not None:
            row["match"] = round(self.match, 4)
        if self.kind == "text":
            row |= {"text": self.text, "field": self.record.get("field"), "image": self.path}
        else:
            row |= {"path": self.path, "width": self.record.get("width"), "height": self.record.get("height")}
        if self.duplicates:
            row["alike"] = len(self.duplicates)
            row["alike_paths"] = [hit.path for hit in self.duplicates]
        return row
