"""What a walk finds: image files, files passed over with a reason, and what lies around them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from brivl_search.corpus.containers.place import Place
from brivl_search.corpus.kinds import image_extensions
from brivl_search.display import printable


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to index.

    Attributes:
        path: absolute, below the root as it was given (links are not resolved); bytes that are not UTF-8 survive as
            surrogate escapes, so `os.fsencode` gives the name on disk.
        size: bytes.
        mtime_ns: time of the last change; for an image inside a container, the container's.
        place: where its bytes lie inside a container (path CONTAINER::MEMBER); None: it is a file of its own.
    """

    path: str
    size: int
    mtime_ns: int
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that looks like an image and cannot be one; `reason` is short and countable."""

    path: str
    reason: str
    detail: str = ""


@dataclass
class Scan:
    """What lies under some folders.

    Attributes:
        roots: the folders, absolute.
        images: sorted by path, each path once.
        captions: paths of the caption files, sorted.
        skipped: files with an image's name that were passed over, sorted by path.
        unreadable_dirs: folders that exist but could not be listed (and links to places out of reach): what an
            earlier build found beneath them has not vanished.
        other_files: files that are neither images nor captions.
        unread: of these, the pictures and videos that are not read yet, by `kinds.label`: as a rule their ending.
        passed: images passed over on purpose, by why: "excluded", "hidden", or the name of a system's folder.
        patterns_used: of the roots' patterns to exclude, those that kept something out.
        empty_dirs: folders below the roots in which there is nothing at all.
        mounts: root → folders below it that are other file systems, relative → `disks.disk_of` of them.
        places: root → (device, inode).
        aliases: (folder, the name by which the index knows it already) of folders that were not walked again.
    """

    roots: tuple[str, ...]
    images: list[ImageFile] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unreadable_dirs: list[str] = field(default_factory=list)
    other_files: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    patterns_used: set[str] = field(default_factory=set)
    empty_dirs: set[str] = field(default_factory=set)
    mounts: dict[str, dict[str, int]] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    aliases: list[tuple[str, str]] = field(default_factory=list)

    def describe_empty(self) -> str:
        """One line that says why there are no images here, for the message of a build that finds none."""
        where = ", ".join(printable(root) for root in self.roots)
        verb = "holds" if len(self.roots) == 1 else "hold"
        if self.skipped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(s.reason for s in self.skipped).most_common())
            return f"{where} {verb} no image that can be read (skipped: {reasons})"
        if self.unreadable_dirs:
            return f"{where}: {_count(len(self.unreadable_dirs), 'folder')} cannot be read (permission denied)"
        if self.passed:
            kinds = ", ".join(f"{count:,} {why}" for why, count in self.passed.most_common())
            return f"{where} {verb} no image but what is passed over ({kinds})"
        if self.aliases:
            folder, known = self.aliases[0]
            return f"{printable(folder)} is {printable(known)} under another name, which is indexed already"
        others = self.other_files + len(self.captions)
        if others:
            extensions = ", ".join(sorted(image_extensions()))
            return f"{where} {verb} {_count(others, 'file')} but no images (looked for {extensions})"
        return f"{where} {'is' if len(self.roots) == 1 else 'are'} empty"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
