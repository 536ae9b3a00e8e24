"""What leaves an index in a build: images that are gone from where they were, and captions that no line gives any more.

Three kinds of roots look after what they brought in. A folder: all files below it. A container (a tar, say): its
members. Annotations of files: what they list, but a file that stays on disk may be another root's, or one that
somebody added, so it goes only together with the captions that the annotations gave it.

What is away is not gone. That is a root that is not there or is empty, and a folder below a root that is empty, or was
another file system and is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from brivl_search.corpus import disks
from brivl_search.corpus.containers.place import SEPARATOR, split
from brivl_search.corpus.readers.base import Reader
from brivl_search.corpus.rules import Rules, excluded, is_system
from brivl_search.corpus.sources import Sources
from brivl_search.index import IndexWriter, ItemState
from brivl_search.index.keys import captions_of, is_generated
from brivl_search.index.sources import ROOTS, Source, is_away
from brivl_search.ingest.captions import CaptionStage
from brivl_search.ingest.coverage import Coverage, counted_images, rules_of, state_of
from brivl_search.ingest.moved import shown

if TYPE_CHECKING:
    from brivl_search.ingest.report import BuildReport

# Reasons that may pass: what the index holds of such a file is kept. Any other reason is about the content itself.
PASSING_REASONS = {
    "permission denied", "read error", "file vanished", "file changed", "out of memory", "decoding timed out",
    "broken link",
}  # fmt: skip


class Forgetting:
    """Removes from the index what a build did not find, as far as it looked.

    Args:
        writer, sources, coverage, report: of the build.
        indexed: the images found; those that are kept unseen join them.

    Attributes:
        kept: images whose captions and fields stay as they are, for all this build knows.
    """

    def __init__(
        self, writer: IndexWriter, sources: Sources, coverage: Coverage, report: BuildReport, indexed: set[str]
    ) -> None:
        self.writer, self.sources, self.report, self.indexed = writer, sources, report, indexed
        self.coverage = coverage
        self.scan = sources.scan
        self.out_of_reach: set[str] = set()  # images in the index that this scan could not look at
        self.elsewhere: set[str] = set()  # and those that are not for this scan to look at
        self.kept: set[str] = set()
        self._before = {source.path: source for source in writer.sources}
        self._empty: dict[str, dict[str, str]] = {}  # folder that is away -> key -> content, of what is kept of it

    def _covers(self, reader: Reader) -> list[str]:
        """What the keys of a dataset's images begin with, now and when it was read last (of another split, say)."""
        source = self._before.get(reader.path)
        before = source.covers if source else ()
        return [*reader.covers, *(cover for cover in before if cover not in reader.covers)]

    def images(self) -> None:
        """Stages the removal of vanished images."""
        self._from_folders()
        for reader in self.sources.readers.values():
            self._from_dataset(reader)
        self._from_doubles()
        self._from_named()

    def _from_folders(self) -> None:
        for root in self.scan.roots:
            inside = os.path.join(root, "")
            empty = not any(image.path.startswith(inside) for image in self.scan.images)  # a disk not mounted, say
            for key in self.writer.keys_under("image", inside):
                if key in self.indexed or (state := self.writer.known("image", key)) is None:
                    continue
                if self.coverage.is_of_away(key):
                    self._keep(key, told=True)
                elif split(key) is not None:  # in a tar, say, that lies here: a build of the tar looks into it
                    self.indexed.add(key)
                    self.elsewhere.add(key)
                elif empty or self._cannot_tell(key):
                    self._keep(key)
                elif folder := self._away(key):
                    self._empty.setdefault(folder, {})[key] = state.content
                    self._keep(key, told=True)
                elif self._stays(key, state):
                    self.indexed.add(key)
                    self.elsewhere.add(key)
                else:
                    self._forget(key)

    def _away(self, key: str) -> str:
        """The folder that is away with which a file went; "" if there is none."""
        return next((one for one in self._folders_away if key.startswith(os.path.join(one, ""))), "")

    @cached_property
    def _folders_away(self) -> list[str]:
        mounts = [
            os.path.join(source.path, mount)
            for source in self._before.values()
            if source.path in self.scan.roots
            for mount in source.mounts
            if is_away(os.path.join(source.path, mount))
        ]
        return sorted({*mounts, *self.scan.empty_dirs, *self.coverage.closed})

    def _stays(self, key: str, state: ItemState) -> bool:
        """Whether an image stays that the scan of its folder passed over."""
        if state.origin == "import" and not state.mtime_ns:
            return True  # there never was a file
        if state.origin == "scan" or not os.path.lexists(key):
            return False
        return state.origin != "unknown" or not self._is_excluded(key)

    def _is_excluded(self, key: str) -> bool:
        """For an index of an older format: does `exclude` say that a file that is there shall go?"""
        root = max((root for root in self.scan.roots if key.startswith(os.path.join(root, ""))), key=len, default="")
        rules = rules_of(self.coverage.read_with(root)) if root else Rules()
        folder, above = key, []
        while folder != root and folder != os.path.dirname(folder):
            above.append(folder)
            folder = os.path.dirname(folder)
        return any(is_system(os.path.basename(one)) for one in above) or any(
            excluded(one, one != key, root, rules.patterns, ()) for one in above
        )

    def _from_doubles(self) -> None:
        """A folder that was indexed under two names loses the rows of one."""
        for path, name in self.coverage.doubles:
            for key, _ in self.writer.states_under("image", os.path.join(path, "")):
                if name + key[len(path) :] in self.indexed and key not in self.indexed:
                    self.writer.remove("image", key)
                    for caption in self.writer.keys_under("text", captions_of(key)):
                        self.writer.remove("text", caption)

    def _from_named(self) -> None:
        """Single files of folders that are no roots: gone, unless the disk that they were on is away."""
        if not self.coverage.whole:
            return
        for source in self._before.values():
            if source.kind != "files" or (source.path + os.sep).startswith(self._inside):
                continue
            for key, state in self.writer.states_under("image", os.path.join(source.path, "")):
                if state.origin != "file" or os.path.dirname(key) != source.path or key in self.indexed:
                    continue
                if self.coverage.is_of_away(key):
                    self._keep(key, told=True)
                elif os.path.lexists(key):
                    self._keep(key)
                elif self._cannot_tell(key) or not _same_disk(source):
                    self._empty.setdefault(source.path, {})[key] = state.content
                    self._keep(key, told=True)
                else:
                    self._forget(key)
                    for caption in self.writer.keys_under("text", captions_of(key)):
                        self.writer.remove("text", caption)
                        self.report.captions_removed += 1

    @cached_property
    def _inside(self) -> tuple[str, ...]:
        return tuple(os.path.join(root, "") for root in self.scan.roots)

    def _forget(self, key: str) -> None:
        self.writer.remove("image", key)
        self.report.vanished += 1

    def moved(self, contents: set[str]) -> None:
        """Forgets what was kept of empty folders and has just come in from another place.

        Args:
            contents: of the images that this build put into the index.
        """
        for files in self._empty.values():
            for key in [key for key, content in files.items() if content in contents]:
                del files[key]
                self.indexed.discard(key)
                self.out_of_reach.discard(key)
                self.report.kept_unreadable -= 1
                self.report.kept_told -= 1
                self._forget(key)

    def tell(self) -> None:
        """Notes for the user of the folders that are away."""
        for folder, files in self._empty.items():
            if files:
                self.report.notes.append(
                    f"{shown(folder)} {state_of(folder)}: {counted_images(len(files))} in the index, "
                    f"as if its disk were away; to forget them: `remove` {shown(folder)}"
                )

    def _from_dataset(self, reader: Reader) -> None:
        """Forgets images of a dataset that are gone: members of its containers, and files that no longer exist."""
        for cover in self._covers(reader):
            for key in self.writer.keys_under("image", cover):
                if key in self.indexed or (cover not in reader.covers and self.shared(key)):
                    continue
                if not cover.endswith(SEPARATOR) and (split(key) or os.path.lexists(key)):
                    continue
                if self._cannot_tell(key):
                    self._keep(key)
                else:
                    self._forget(key)

    @cached_property
    def _passing(self) -> set[str]:
        return {skip.path for skip in self.scan.skipped if skip.reason in PASSING_REASONS}

    @cached_property
    def _unreadable(self) -> tuple[str, ...]:
        return self.sources.unreadable

    def _cannot_tell(self, key: str) -> bool:
        return key in self._passing or key.startswith(self._unreadable)

    def _keep(self, key: str, *, told: bool = False) -> None:
        """An image stays that nobody could look at; `told`: a note speaks of it already."""
        self.indexed.add(key)
        self.out_of_reach.add(key)
        self.report.kept_unreadable += 1
        self.report.kept_told += told

    def captions(self, stage: CaptionStage) -> None:
        """Stages the removal of captions that are gone, once the stage has read all that there are."""
        for root in self.scan.roots:
            # Inside a larger indexed folder, the caption file may be one that this build does not read.
            nested = any(root.startswith(os.path.join(known, "")) for known in self._roots if known != root)
            keep = {image for image in (self.indexed if nested else self.out_of_reach) if image not in stage.fields}
            keep |= self.elsewhere - stage.fields.keys()
            stage.forget_under(os.path.join(root, ""), self._keeping(stage, keep), self.shared)
            self.kept |= keep
        for reader in self.sources.readers.values():
            cut = tuple(reader.unreadable)  # the caption may lie behind the break, the image before it
            keep = {image for image in self.indexed if image in self.out_of_reach or image.startswith(cut)}
            keep -= stage.fields.keys()
            for cover in self._covers(reader):
                bare = stage.forget_under(cover, self._keeping(stage, keep), self.shared)
                self._unlisted(bare, cover)
            self.kept |= keep

    def _keeping(self, stage: CaptionStage, keep: set[str]) -> Callable[[str], bool]:
        """Whether an image's captions stay: it is one of `keep`, or they may stand in lines that are no text."""
        if not stage.not_text:
            return keep.__contains__
        self.kept |= self.indexed - stage.fields.keys()
        return lambda image: image in keep or image not in stage.fields

    def say_not_text(self, stage: CaptionStage) -> None:
        """A note on caption files that are not of their encoding: what is behind their lines stays."""
        for file in sorted(stage.not_text):
            self.report.notes.append(
                f"{shown(file)} is not all UTF-8: captions that no other line gives stay as they were; "
                "`encoding` reads it"
            )

    @cached_property
    def _roots(self) -> list[str]:
        return [source.path for source in self.writer.sources if source.kind in ROOTS]

    def shared(self, image: str) -> bool:
        """Whether roots that this build does not read may know the image too.

        Only the field tells their captions from this build's. So another field of the image stays. Captions that no
        line gives any more stay too, until a build of all roots (`sync`) has the whole to compare with.
        """
        return image.startswith(self._others)

    @cached_property
    def _others(self) -> tuple[str, ...]:
        """What the keys of such roots begin with."""
        read = {*self.scan.roots, *(os.path.abspath(path) for path in self.sources.readers)}
        rest = [source for source in self.writer.sources if source.path not in read]
        covers = [cover for source in rest if source.kind == "dataset" for cover in source.covers]
        if not self.sources.readers:  # two folders: the rule for nested ones holds
            return tuple(covers)
        plain = [source.path for source in rest if source.kind == "folder"]
        return (*covers, *(os.path.join(root, "") for root in plain))

    def _unlisted(self, images: Iterable[str], cover: str) -> None:
        """Forgets files that a dataset listed once and does not list now: all of their captions have just gone."""
        for image in images:
            if (
                image not in self.indexed
                and not cover.endswith(SEPARATOR)
                and not image.startswith((*self._others, *(os.path.join(root, "") for root in self.scan.roots)))
                and all(map(is_generated, self.writer.keys_under("text", captions_of(image))))
                and self.writer.known("image", image) is not None
            ):
                self.writer.remove("image", image)
                self.report.vanished += 1


def _same_disk(source: Source) -> bool:
    """Is the file system there on which a folder of single files lay?

    The folder may be gone. Then the nearest folder above it that is there has to lie on the same device.
    """
    folder = source.path
    while not os.path.isdir(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    if source.disk:
        return disks.disk_of(folder) == source.disk
    return os.stat(folder).st_dev == source.device if source.device else folder == source.path
