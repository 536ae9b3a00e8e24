"""The writer's part in keeping what a matcher reads of pictures: which have it, what is staged, for which matcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from brivl_search.index import catalog
from brivl_search.index.draft import Draft
from brivl_search.index.types import KeptRegions


class Keeping(Draft):
    """What `IndexWriter` does with regions; all of it is of images."""

    @property
    def regions(self) -> KeptRegions | None:
        """For which matcher regions are kept; None: for none."""
        return self._meta.parts["image"].regions

    def keep_regions(self, wanted: KeptRegions | None) -> None:
        """Keep regions for this matcher from the next commit on; None: no longer.

        Those of another matcher stay where they are, unread, until their shard is written anew.
        """
        parts = self._meta.parts
        self._meta = replace(self._meta, parts={**parts, "image": replace(parts["image"], regions=wanted)})

    def stage_regions(self, contents: Sequence[str], packed: Sequence[bytes]) -> None:
        """Keep until the commit what the matcher reads of pictures; it gives every row of these contents theirs.

        Args:
            contents: n content hashes.
            packed: n values of `regions.pack`.
        """
        wanted = self.regions
        if wanted is None:
            raise ValueError("no matcher whose regions are kept")
        for content, value in zip(contents, packed, strict=True):
            self._stage.put_regions(content, wanted.fingerprint, value)

    def lacks_regions(self, content: str) -> bool:
        """Does a picture with this content have none, neither staged nor in all of its live rows?"""
        wanted = self.regions
        if wanted is None or self._stage.regions(content, wanted.fingerprint) is not None:
            return False
        places = catalog.places_of(self._txn(), "image", content)
        return not places or not all(self._shard("image", seq).kept(wanted.fingerprint)[row] for seq, row in places)

    def count_without_regions(self) -> int:
        """Live published rows that have none."""
        wanted, count = self.regions, 0
        for info in self._meta.parts["image"].shards if wanted is not None else ():
            assert wanted is not None
            lacking = ~self._shard("image", info.seq).kept(wanted.fingerprint)
            lacking[catalog.get_removed(self._txn(), info.name)] = False
            count += int(np.count_nonzero(lacking))
        return count
