"""What a build did, on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from brivl_search.corpus import kinds
from brivl_search.display import printable
from brivl_search.index import CommitReport
from brivl_search.ingest.report import BuildReport
from brivl_search.output import print_skips, say, warn

SHOWN = 5  # examples named of each kind of trouble


def print_build(report: BuildReport, directory: str, *, verbose: bool, seconds: float | None = None) -> None:
    """The summary of a build, on stderr: counts, every skip reason with examples, what the index now holds.

    Args:
        report: of the build.
        directory: the index, as it was typed.
        verbose: name every file that was skipped.
        seconds: that the whole command took.
    """
    print_skips(report.skipped, verbose=verbose)
    for note in report.notes:
        warn(note)
    if report.bad_captions:
        warn(f"{len(report.bad_captions):,} caption lines not used")
        for line in report.bad_captions if verbose else report.bad_captions[:SHOWN]:
            say(f"    {printable(line)}")
        if len(report.bad_captions) > SHOWN and not verbose:
            say(f"    ... and {len(report.bad_captions) - SHOWN:,} more (-v names them all)")
    if report.cut_captions:
        warn(f"{report.cut_captions:,} captions are longer than the text tower takes; their ends were not seen")
    for name in report.missing_fields:
        warn(f"no caption line has the field {name!r}")
    if report.unknown_captions:
        words = ", ".join(word[:40] for word, _ in report.unknown_words.most_common(SHOWN))
        warn(f"{report.unknown_captions:,} captions hold words that the encoder does not know, such as {words}")
    if report.unread_captions:
        warn(f"{report.unread_captions:,} captions hold no word that the encoder knows: they cannot be told apart")
    if kept := report.kept_unreadable - report.kept_told:
        warn(f"{kept:,} files cannot be read now; what the index holds of them is kept")
    counts = [
        (report.embedded, "embedded"),
        (report.reused, "reused (duplicate, renamed or touched)"),
        (report.unchanged, "unchanged"),
        (len(report.skipped), "skipped"),
    ]
    gone = f"; {report.vanished:,} vanished and removed" if report.vanished else ""
    say(f"{report.seen:,} images found: {_sum(counts)}{gone}")
    passed = {why: count for why, count in report.passed.items() if why != "hidden" or verbose}
    if passed:
        kinds = ", ".join(f"{count:,} {why}" for why, count in sorted(passed.items()))
        say(f"{sum(passed.values()):,} images passed over: {kinds}")
    for line in unread_lines(report.unread):
        say(line)
    if report.regions_for:
        read = f"; {report.regions:,} images were read for them" if report.regions else ""
        say(f"regions are kept for {printable(report.regions_for)}{read}")
        if report.without_regions:
            warn(f"{report.without_regions:,} images have no regions: re-ordering reads their files")
    if report.captions or report.captions_removed:
        captions = [
            (report.captions_embedded, "embedded"),
            (report.captions_reused, "the same text as another"),
            (report.captions_unchanged, "unchanged"),
        ]
        removed = f"; {report.captions_removed:,} removed" if report.captions_removed else ""
        say(f"{report.captions:,} captions: {_sum(captions)}{removed}")
    if report.captions_generated:
        say(f"{report.captions_generated:,} captions generated for {report.photos_captioned:,} images without any")
    if report.embed_seconds and report.embedded:
        whole = f" of {seconds:,.1f} s" if seconds else ""
        say(f"{report.embedded / report.embed_seconds:,.1f} images/s over {report.embed_seconds:,.1f} s{whole}")
    if report.commit is not None:
        for note in report.commit.notes:
            say(note)
        say_state(directory, report.commit)


def unread_lines(unread: Counter[str]) -> list[str]:
    """A line for each kind of file that is not read: how many there are, and what helps."""
    lines: dict[str, list[str]] = {}
    for found, count in unread.most_common():
        kind = kinds.of_label(found)
        name, remedy = (kind.name, kind.remedy) if kind else ("other files", "")
        shown = f"{count:,} {found}" if found.startswith(".") else f"{count:,} with another ending"
        lines.setdefault(f"{name}|{remedy}", []).append(shown)
    out = []
    for what, counts in lines.items():
        name, _, remedy = what.partition("|")
        out.append(f"not read: {name} ({', '.join(counts)})" + (f": {remedy}" if remedy else ""))
    return out


def _sum(parts: Sequence[tuple[int, str]]) -> str:
    """The parts that are not zero; the first in any case."""
    return ", ".join(f"{count:,} {what}" for at, (count, what) in enumerate(parts) if count or not at)


def say_state(directory: Path | str, commit: CommitReport) -> None:
    """What the index holds after a commit: the last line of every verb that changes one."""
    images, captions = f"{commit.image.live:,} images", f"{commit.text.live:,} captions"
    say(f"index {directory}: {images}, {captions}, generation {commit.generation}")
