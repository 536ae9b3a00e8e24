"""`--keep-regions`: what a matcher reads of pictures goes into the index, so that re-ordering need not read them again.

New pictures are read while they are embedded: the CNNs run once for both. Pictures that the index has already are read
in a second pass, and not embedded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from brivl_search.corpus.decode_pool import Decoded
from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding.batches import in_batches
from brivl_search.encoders.base import Encoder, Origin
from brivl_search.encoders.matching import KeepsRegions, load_matcher
from brivl_search.encoders.registry import BUNDLED
from brivl_search.errors import BrivlSearchError, UsageError
from brivl_search.index import IndexWriter
from brivl_search.index.regions import pack, packed_bytes
from brivl_search.index.types import KeptRegions
from brivl_search.ingest.report import BuildReport, Progress

NONE = "none"  # given instead of a matcher: no longer


def matcher_for(name: str, encoder: Encoder) -> KeepsRegions:
    """The matcher of this name, if an index of the encoder can keep what it reads.

    Raises:
        UsageError: there is none, or what it reads of a picture is not kept.
        EncoderError: it cannot be loaded, or does not fit the encoder.
    """
    matcher = load_matcher(name, encoder, device=getattr(encoder, "asked_device", "auto"))
    if not isinstance(matcher, KeepsRegions):
        raise UsageError(
            f"`keep_regions` {name}: this matcher reads whole pictures, not regions: give one that `train.one_tower` "
            "made, or leave it out",
            code="no_regions",
        )
    return matcher


class Keeper:
    """Reads pictures for a matcher and stages what it finds.

    Args:
        matcher: whose regions are kept.
        writer: of the index.
    """

    def __init__(self, matcher: KeepsRegions, writer: IndexWriter) -> None:
        self.matcher, self.writer = matcher, writer
        bundled = matcher.folder.parent == BUNDLED
        name = matcher.folder.name if bundled else str(matcher.folder.absolute())  # found from any folder
        writer.keep_regions(KeptRegions(name, matcher.fingerprint, packed_bytes(*matcher.region_sizes)))

    def encode(self, pictures: Sequence[Decoded]) -> NDArray[np.float32]:
        """Unit vectors of decoded pictures, float32 (n, dim); their regions are staged."""
        found, vectors = self.matcher.pictures_and_vectors(*_together(pictures))
        self._stage(pictures, found)
        return vectors

    def read(self, pictures: Sequence[Decoded]) -> None:
        """Stages the regions of decoded pictures."""
        self._stage(pictures, self.matcher.pictures(*_together(pictures)))

    def _stage(self, pictures: Sequence[Decoded], found: Sequence[object]) -> None:
        packed = [pack(one.tokens, one.hub) for one in found]  # type: ignore[attr-defined]
        self.writer.stage_regions([one.sha256 for one in pictures], packed)

    def fill(
        self,
        files: Sequence[ImageFile],
        decoded: Callable[[Sequence[ImageFile]], Iterable[Decoded]],
        batch_size: int,
        progress: Progress,
        flush: Callable[[], None],
    ) -> int:
        """Reads the pictures of an index that have no regions yet; says how many.

        Args:
            files: of the index. One whose content is not what was indexed, or that cannot be read, is left as it is.
            decoded: files → what is in them, in any order, those that cannot be read among them.
            batch_size: pictures a forward pass.
            progress: told how far it is.
            flush: called between batches.
        """
        if not (self.writer.pending_rows("image") or self.writer.count_without_regions()):
            return 0
        wanted: dict[str, ImageFile] = {}
        for file in files:
            state = self.writer.known("image", file.path)
            if state is not None and state.content not in wanted and self.writer.lacks_regions(state.content):
                wanted[state.content] = file
        if not wanted:
            return 0
        progress.phase("regions", len(wanted))
        done = 0
        for batch in in_batches(decoded(list(wanted.values())), batch_size, lambda one: one.pixels is not None):
            there = [one for one in batch if one.pixels is not None and one.sha256 in wanted]
            if there:
                self.read(there)
            done += len(there)
            progress.advance(len(batch))
            flush()
        self.writer.flush()
        return done


def _together(pictures: Sequence[Decoded]) -> tuple[NDArray[np.uint8], list[Origin]]:
    pixels = [one.pixels for one in pictures if one.pixels is not None]
    return np.stack(pixels), [Origin(one.file.path, one.width, one.height) for one in pictures]


def keeper_for(
    writer: IndexWriter, encoder: Encoder, matcher: KeepsRegions | None, wanted: str | None, report: BuildReport
) -> Keeper | None:
    """Who keeps regions in this build; None: nobody, and if the index wants it a note says why not.

    Args:
        writer, encoder, report: of the build.
        matcher: the one that was asked for, loaded.
        wanted: how it was asked for; None: whatever the index keeps.
    """
    if wanted == NONE:
        writer.keep_regions(None)
        return None
    if matcher is not None:
        return Keeper(matcher, writer)
    known = writer.regions
    if known is None:
        return None
    try:
        matcher = matcher_for(known.name, encoder)
        if matcher.fingerprint == known.fingerprint:
            return Keeper(matcher, writer)
        why = f"the matcher {known.name} is another one than when its regions were kept"
    except BrivlSearchError as error:
        why = str(error)
    report.notes.append(
        f"{why}: regions of new pictures are not kept now; `keep_regions` names the matcher, or {NONE} to keep no more"
    )
    return None
