"""`meta`: everything small that the catalog says of an index, as one JSON value.

With each commit a new one takes the old one's place, in the transaction that changes the items.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from brivl_search.errors import IndexIncompatibleError
from brivl_search.index.moves import Moves
from brivl_search.index.sources import Source, of_roots
from brivl_search.index.types import (
    FORMAT_VERSION,
    MODALITIES,
    READABLE_VERSIONS,
    Codec,
    Correction,
    EncoderInfo,
    IndexType,
    KeptRegions,
    Modality,
    ShardInfo,
    Tuning,
)


@dataclass(frozen=True)
class Quantizer:
    """Facts about the trained quantizer of a modality; its bytes are under `quantizer/{modality}`."""

    nlist: int
    m: int
    trained_rows: int
    sha256: str
    codec: Codec = "pq8"
    error: float = 0.0  # mean squared distance of rows to their codes when it was trained; 0: not measured


@dataclass(frozen=True)
class Part:
    """The state of one modality."""

    next_seq: int = 1
    shards: tuple[ShardInfo, ...] = ()
    quantizer: Quantizer | None = None
    tuning: Tuning | None = None
    correction: Correction | None = None  # for hubs; its bytes are under `correction/{modality}`
    regions: KeptRegions | None = None  # of a matcher, in the shards; None: none are kept


@dataclass(frozen=True)
class Meta:
    """The value of `meta`: the published state but for what is kept row by row."""

    generation: int
    encoder: EncoderInfo
    index_type: IndexType = "auto"
    shard_rows: int = 1_000_000
    seed: int = 0
    codec: Codec = "fastscan"  # of the next quantizer that is trained
    memory: int = 0  # bytes that FAISS's part of an index may take; 0: no limit
    identity: str = ""  # random; "" before the first commit of format 4
    sources: tuple[Source, ...] = ()  # their paths as stored
    moves: tuple[tuple[str, str], ...] = ()  # (path as stored, where it is now)
    parts: dict[Modality, Part] = field(default_factory=lambda: {modality: Part() for modality in MODALITIES})

    def with_parts(self, parts: dict[Modality, Part]) -> Meta:
        return replace(self, generation=self.generation + 1, parts=parts)

    @cached_property
    def where(self) -> Moves:
        """Keys as they are stored ↔ keys as they are here."""
        return Moves(self.moves)

    @cached_property
    def state(self) -> str:
        """Equal for equal published states only: of one index, and of all others."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        body = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(body, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")

    @classmethod
    def from_json(cls, raw: bytes, where: Path) -> Meta:
        """Raises: IndexIncompatibleError if the format is of another version or the value is damaged."""
        try:
            body = json.loads(raw)
            version = body.pop("format_version")
            if version not in READABLE_VERSIONS:
                raise IndexIncompatibleError(
                    f"{where} has index format {version}, this brivl-search reads formats up to {FORMAT_VERSION}: "
                    + ("upgrade brivl-search" if version > FORMAT_VERSION else "build the index again")
                )
            parts: dict[Modality, Part] = {}
            for modality in MODALITIES:
                part = body["parts"][modality]
                correction, regions = part.get("correction"), part.get("regions")
                parts[modality] = Part(
                    next_seq=part["next_seq"],
                    shards=tuple(ShardInfo(**shard) for shard in part["shards"]),
                    quantizer=Quantizer(**part["quantizer"]) if part["quantizer"] else None,
                    tuning=Tuning(**part["tuning"]) if part["tuning"] else None,
                    correction=Correction(**correction) if correction else None,
                    regions=KeptRegions(**regions) if regions else None,
                )
            body["parts"] = parts
            body["encoder"] = EncoderInfo(**body["encoder"])
            if version < 4:
                body["sources"] = of_roots(body.pop("roots", ()), body.pop("datasets", {}))
            else:
                body["sources"] = tuple(Source.of(source) for source in body["sources"])
                body["moves"] = tuple((stored, now) for stored, now in body["moves"])
            return cls(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IndexIncompatibleError(f"{where} is damaged ({error}): {anew(where.parent)}") from error


def anew(directory: Path) -> str:
    """The way out where an index is damaged for good."""
    return f"delete the folder {directory} and build the index again"
