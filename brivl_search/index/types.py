"""The words of the index: items that go in, facts and results that come out. Nothing here does any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brivl_search.index.sources import Source
from brivl_search.metrics.hub_correction import HubCorrection

Modality = Literal["image", "text"]
IndexType = Literal["auto", "ivfpq", "exact"]
ShardKind = Literal["ivfpq", "exact"]
Codec = Literal["fastscan", "pq8"]
Origin = Literal["unknown", "scan", "file", "import"]

MODALITIES: tuple[Modality, Modality] = ("image", "text")
ORIGINS: tuple[Origin, ...] = ("unknown", "scan", "file", "import")
FORMAT_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)  # 1 had no checksums of rows, 2 no places, 3 no sources, origins or identity
UNKNOWN_TIME = -(1 << 63)  # ns since the epoch, where the time of a file is not known: 0 is one


@dataclass(frozen=True)
class Item:
    """One thing that is indexed.

    Attributes:
        key: unique within its modality; an image's absolute path, a text's id made of (image, field, text).
        content: hash of the content (hex sha256); equal content shares one embedding.
        size: of the file in bytes; for a text a checksum of its fields, 0 if it has none.
        mtime_ns: of the file, 0 for a text.
        record: the JSON object shown to users.
        origin: how it came in: "scan" of a folder or dataset, a "file" that was named, an "import"; "unknown" in an
            index of format 3 or older. What was named or imported does not leave because a scan passes over it.
    """

    key: str
    content: str
    size: int = 0
    mtime_ns: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = "scan"


@dataclass(frozen=True)
class ItemState:
    """What the index knows of an item's file, published or staged."""

    content: str
    size: int
    mtime_ns: int
    origin: Origin = "scan"


@dataclass(frozen=True)
class ShardInfo:
    """One sealed shard as the catalog describes it.

    Attributes:
        name: file name in DIR/shards.
        seq: the number in the name; item entries point to it.
        rows: rows in the file, removed ones included.
        bytes: size of the file.
        checksum: sha256 over the logical (key, value) pairs; equal for equal content, wherever it was built.
        file_sha256: sha256 of this very file, so that damage is found without mapping it.
        kind: "ivfpq" or "exact".
        nlist: inverted lists, 0 in an exact shard.
        m: PQ bytes per row, 0 in an exact shard.
        codec: how rows are coded: "fastscan" (4 bit, scanned in registers) or "pq8" (8 bit).
        mtime_ns: of the file when it was sealed; a file with another time is hashed before it is trusted.
        places: [offset in the file, bytes] of each large value and of `meta`.
    """

    name: str
    seq: int
    rows: int
    bytes: int
    checksum: str
    file_sha256: str
    kind: ShardKind
    nlist: int = 0
    m: int = 0
    mtime_ns: int = 0
    codec: Codec = "pq8"
    places: dict[str, list[int]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Tuning:
    """How IVF-PQ is searched, and what recall that was measured to give.

    Attributes:
        nprobe: inverted lists visited.
        rerank: candidates per shard that are scored exactly.
        recall: measured recall@10 against exact search, None if it was not measured.
        queries: number of queries it was measured with.
        rows: live rows at the time of the measurement.
        kind: what the queries were, e.g. "cross-modal".
        target: the recall that was asked for.
        qps: queries/s measured with this setting, one query at a time; None if time was not measured.
    """

    nprobe: int
    rerank: int
    recall: float | None = None
    queries: int = 0
    rows: int = 0
    kind: str = "not measured"
    target: float = 0.99
    qps: float | None = None


@dataclass(frozen=True)
class Correction:
    """Facts about a modality's `HubCorrection`, whose bytes are in the catalog.

    Attributes:
        weight: α, the part by which scores are lowered.
        nearest: k, the reference queries that count.
        references: how many there are.
        sha256: of the bytes.
    """

    weight: float
    nearest: int
    references: int
    sha256: str

    @classmethod
    def of(cls, correction: HubCorrection) -> Self:
        return cls(correction.weight, correction.nearest, len(correction.references), correction.sha256)


@dataclass(frozen=True)
class KeptRegions:
    """What an index keeps of its pictures for a matcher.

    Attributes:
        name: how the matcher is called, or its folder, absolute.
        fingerprint: of the matcher.
        bytes: of a picture's regions.
    """

    name: str
    fingerprint: str
    bytes: int


@dataclass(frozen=True)
class ModalityInfo:
    """Facts about one modality of an open index; `with_regions` of its live rows have their `regions` kept."""

    rows: int
    removed: int
    shards: tuple[ShardInfo, ...]
    kind: Literal["ivfpq", "exact", "mixed", "empty"]
    nlist: int
    m: int
    trained_rows: int
    bytes: int
    tuning: Tuning | None
    codec: Codec | None = None
    correction: Correction | None = None
    regions: KeptRegions | None = None
    with_regions: int = 0


@dataclass(frozen=True)
class EncoderInfo:
    """The encoder whose vectors the index holds."""

    name: str
    fingerprint: str
    dim: int


@dataclass(frozen=True)
class IndexInfo:
    """Facts about an open index.

    Attributes:
        identity: random, given at the first commit; "" in an index of format 3 or older. Two indexes never share it.
        state: equal for equal published states only; what was learned of another one may be wrong for this.
        roots: (as given, absolute) of each folder and dataset.
        sources: all that it covers.
    """

    directory: Path
    format_version: int
    identity: str
    state: str
    generation: int
    encoder: EncoderInfo
    roots: tuple[tuple[str, str], ...]
    index_type: IndexType
    shard_rows: int
    image: ModalityInfo
    text: ModalityInfo
    sources: tuple[Source, ...] = ()

    def of(self, modality: Modality) -> ModalityInfo:
        return self.image if modality == "image" else self.text


@dataclass(frozen=True)
class SearchResult:
    """The k best rows for each query, best first.

    Attributes:
        scores: float32 (n, k); -inf where fewer than k live rows exist.
        shards: int32 (n, k), positions in `ModalityInfo.shards`; -1 where there is no row.
        rows: int64 (n, k); -1 where there is no row.
        lowered: float32 (n, k), the part of each score that is a correction for hubs; None: scores are dot products.
    """

    scores: NDArray[np.float32]
    shards: NDArray[np.int32]
    rows: NDArray[np.int64]
    lowered: NDArray[np.float32] | None = None

    @property
    def cosines(self) -> NDArray[np.float32]:
        """float32 (n, k): the dot products, which need not descend where scores are corrected."""
        return self.scores if self.lowered is None else self.scores - self.lowered


@dataclass(frozen=True)
class ModalityReport:
    """What one commit did to one modality."""

    added: int = 0
    removed: int = 0
    touched: int = 0
    live: int = 0
    sealed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    trained: bool = False
    tuning: Tuning | None = None


@dataclass(frozen=True)
class CommitReport:
    """What a commit did; `notes` are sentences for the user."""

    generation: int
    changed: bool
    image: ModalityReport
    text: ModalityReport
    notes: tuple[str, ...] = ()

    def of(self, modality: Modality) -> ModalityReport:
        return self.image if modality == "image" else self.text


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        directory: the index.
        generation: the one that was checked, -1 if the catalog could not be read.
        shards: shard files checked.
        rows: live rows checked, both modalities.
        problems: damage, each line begins with the file it is in.
        leftovers: harmless remains of an interrupted build; the next build uses or removes them.
    """

    directory: Path
    generation: int
    shards: int
    rows: int
    problems: tuple[str, ...]
    leftovers: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems
