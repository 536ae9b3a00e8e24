"""What a search answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brivl_search.index import Modality

FITS = 0.3  # a hit of a lower match hardly fits; where no hit reaches it, nothing does


def pixels_of(record: Mapping[str, Any], name: str) -> int | None:
    """`width` or `height`; None where it is not known: an import may say anything."""
    value = record.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(record: Mapping[str, Any], name: str) -> str | None:
    """`taken` or `field`; None where it is no text."""
    value = record.get(name)
    return value if isinstance(value, str) else None


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
        match: the chance that the hit is right (see `search.match`); None where the encoder knows none, between two
            pictures or two texts, and for sums of several.
        duplicates: near-identical hits that were folded into this one, best first.
        key: of the item in the index.
        rerank: what a matcher ordered it by (`search.rerank`); None where none did.
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
    rerank: float | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the match reaches `FITS`; None where there is no match."""
        return None if self.match is None else self.match >= FITS

    @property
    def generated(self) -> bool:
        """Whether a model wrote the caption."""
        return self.record.get("generated") is True

    def to_dict(self) -> dict[str, Any]:
        """What `--format jsonl` prints."""
        row: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6)}
        if self.match is not None:
            row |= {"match": round(self.match, 4), "fits": self.fits}
        if self.rerank is not None:
            row["rerank"] = round(self.rerank, 4)
        if self.kind == "text":
            row |= {"text": self.text, "field": text_of(self.record, "field"), "image": self.path}
            row |= {"generated": True, "captioner": text_of(self.record, "captioner")} if self.generated else {}
        else:
            row |= {"path": self.path} | {name: pixels_of(self.record, name) for name in ("width", "height")}
        if self.duplicates:
            row["alike"] = len(self.duplicates)
            row["alike_paths"] = [hit.path for hit in self.duplicates]
        return row
