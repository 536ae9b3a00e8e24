"""What is known of an open index, from its catalog and from the shards that could be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from brivl_search.index.catalog import Meta, Part
from brivl_search.index.moves import Moves
from brivl_search.index.search import Searched
from brivl_search.index.sources import ROOTS
from brivl_search.index.types import FORMAT_VERSION, IndexInfo, Modality, ModalityInfo


def _kept(one: Searched, fingerprint: str) -> int:
    """Live rows whose regions are kept for a matcher."""
    kept = one.shard.kept(fingerprint)
    return int(np.count_nonzero(kept if one.live is None else kept & one.live))


def facts_of(directory: Path, meta: Meta, parts: Mapping[Modality, Sequence[Searched]], moves: Moves) -> IndexInfo:
    """What `IndexReader.info` says of shards that are open; paths as they are here."""

    def facts(part: Part, searched: Sequence[Searched]) -> ModalityInfo:
        shards = tuple(one.shard.info for one in searched)
        kinds = {shard.kind for shard in shards}
        kind: Literal["ivfpq", "exact", "mixed", "empty"] = "empty"
        if kinds:
            kind = "mixed" if len(kinds) > 1 else kinds.pop()
        quantizer = part.quantizer if kind in ("ivfpq", "mixed") else None
        rows = sum(one.count for one in searched)
        return ModalityInfo(
            rows=rows,
            removed=sum(shard.rows for shard in shards) - rows,
            shards=shards,
            kind=kind,
            nlist=quantizer.nlist if quantizer else 0,
            m=quantizer.m if quantizer else 0,
            trained_rows=quantizer.trained_rows if quantizer else 0,
            bytes=sum(shard.bytes for shard in shards),
            tuning=part.tuning,
            codec=quantizer.codec if quantizer else None,
            correction=part.correction,
            regions=part.regions,
            with_regions=0 if part.regions is None else sum(_kept(one, part.regions.fingerprint) for one in searched),
        )

    sources = tuple(source.mapped(moves.here) for source in meta.sources)
    return IndexInfo(
        directory=directory,
        format_version=FORMAT_VERSION,
        identity=meta.identity,
        state=meta.state,
        generation=meta.generation,
        encoder=meta.encoder,
        roots=tuple((source.given, source.path) for source in sources if source.kind in ROOTS),
        index_type=meta.index_type,
        shard_rows=meta.shard_rows,
        image=facts(meta.parts["image"], parts["image"]),
        text=facts(meta.parts["text"], parts["text"]),
        sources=sources,
    )
