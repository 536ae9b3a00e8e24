"""What a build tells while it runs, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from brivl_search.corpus.walk import Skipped
from brivl_search.index import CommitReport


class Progress(Protocol):
    """How a build tells what it does; the command line draws a bar from it."""

    def phase(self, name: str, total: int | None) -> None:
        """A new phase of `total` steps begins (None: it cannot be counted)."""
        ...

    def advance(self, steps: int) -> None: ...

    def note(self, line: str) -> None:
        """What the phase is doing now."""
        ...


@dataclass
class BuildReport:
    """What one build did; counts are files for images and (image, field, text) triples for captions.

    Of the captions that were embedded, `unknown_captions` hold `unknown_words`, which the encoder does not know, and
    `unread_captions` hold no word that it knows. `missing_fields` are caption fields that were asked for and that no
    line has. `embed_seconds` is the time from the first batch of pictures to the last vector, without start-up and
    sealing; where others embed, with the start of theirs.
    `captions_generated` were written by a captioner for `photos_captioned` photos.
    `regions` counts images that were read for a matcher without being embedded, `regions_for` is its name if the index
    keeps regions, and `without_regions` of its images have none.
    `kept_unreadable` counts images that stay although they cannot be looked at, `kept_told` those of them that a note
    speaks of. `passed` counts images passed over on purpose, by why; `notes` are sentences for the user, each a
    warning.
    """

    found: int = 0
    unchanged: int = 0
    embedded: int = 0
    reused: int = 0
    vanished: int = 0
    captions: int = 0
    captions_embedded: int = 0
    captions_reused: int = 0
    captions_unchanged: int = 0
    captions_removed: int = 0
    captions_generated: int = 0
    photos_captioned: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    bad_captions: list[str] = field(default_factory=list)
    cut_captions: int = 0
    unknown_captions: int = 0
    unread_captions: int = 0
    unknown_words: Counter[str] = field(default_factory=Counter)
    missing_fields: list[str] = field(default_factory=list)
    kept_unreadable: int = 0
    kept_told: int = 0
    regions: int = 0
    regions_for: str = ""
    without_regions: int = 0
    embed_seconds: float = 0.0
    unread: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    commit: CommitReport | None = None

    @property
    def seen(self) -> int:
        """Every file with an image's name, in exactly one of: embedded, reused, unchanged, skipped."""
        return self.embedded + self.reused + self.unchanged + len(self.skipped)

    def skip_counts(self) -> list[tuple[str, int]]:
        """(reason, files), most frequent first."""
        return Counter(skip.reason for skip in self.skipped).most_common()


class Silent:
    """A `Progress` that nobody watches."""

    def phase(self, name: str, total: int | None) -> None: ...
    def advance(self, steps: int) -> None: ...
    def note(self, line: str) -> None: ...
