"""What leaves an index in a build: images that are gone from where they were, and captions that no line gives any more.

Three kinds of roots look after what they brought in. A folder: all files below it. A container (a tar, say): its
members. Annotations of files: what they list, but a file that stays on disk may be another root's, or one that
somebody added, so it goes only together with the captions that the annotations gave it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from brivl_search.corpus.containers.place import SEPARATOR, split
from brivl_search.corpus.readers.base import Reader
from brivl_search.corpus.sources import Sources
from brivl_search.index import IndexWriter
from brivl_search.index.keys import captions_of
from brivl_search.ingest.captions import CaptionStage

if TYPE_CHECKING:
    from brivl_search.ingest.report import BuildReport

# Reasons that may pass: what the index holds of such a file is kept. Any other reason is about the content itself.
PASSING_REASONS = {
    "permission denied", "read error", "file vanished", "file changed", "out of memory", "decoding timed out"
}  # fmt: skip


class Forgetting:
    """Removes from the index what a build did not find, as far as it looked.

    Args:
        writer, sources, report: of the build.
        indexed: the images found; those that are kept unseen join them.

    Attributes:
        kept: images whose captions and fields stay as they are, for all this build knows.
    """

    def __init__(self, writer: IndexWriter, sources: Sources, report: BuildReport, indexed: set[str]) -> None:
        self.writer, self.sources, self.report, self.indexed = writer, sources, report, indexed
        self.scan = sources.scan
        self.out_of_reach: set[str] = set()  # images in the index that this scan could not look at
        self.elsewhere: set[str] = set()  # and those that are not for this scan to look at
        self.kept: set[str] = set()
        self._before = dict(writer.datasets)

    def _covers(self, reader: Reader) -> list[str]:
        """What the keys of a dataset's images begin with, now and when it was read last (of another split, say)."""
        before = self._before.get(reader.path, {}).get("covers", [])
        return [*reader.covers, *(cover for cover in before if cover not in reader.covers)]

    def images(self) -> None:
        """Stages the removal of vanished images."""
        self._from_folders()
        for reader in self.sources.readers.values():
            self._from_dataset(reader)

    def _from_folders(self) -> None:
        for root in self.scan.roots:
            inside = os.path.join(root, "")
            empty = not any(image.path.startswith(inside) for image in self.scan.images)  # a disk not mounted, say
            for key in self.writer.keys_under("image", inside):
                if key in self.indexed:
                    continue
                if split(key) is not None:  # in a tar, say, that lies here: a build of the tar looks into it
                    self.indexed.add(key)
                    self.elsewhere.add(key)
                elif empty or self._cannot_tell(key):
                    self._keep(key)
                else:
                    self.writer.remove("image", key)
                    self.report.vanished += 1

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
                    self.writer.remove("image", key)
                    self.report.vanished += 1

    @cached_property
    def _passing(self) -> set[str]:
        return {skip.path for skip in self.scan.skipped if skip.reason in PASSING_REASONS}

    @cached_property
    def _unreadable(self) -> tuple[str, ...]:
        return self.sources.unreadable

    def _cannot_tell(self, key: str) -> bool:
        return key in self._passing or key.startswith(self._unreadable)

    def _keep(self, key: str) -> None:
        self.indexed.add(key)
        self.out_of_reach.add(key)
        self.report.kept_unreadable += 1

    def captions(self, stage: CaptionStage) -> None:
        """Stages the removal of captions that are gone, once the stage has read all that there are."""
        for root in self.scan.roots:
            # Inside a larger indexed folder, the caption file may be one that this build does not read.
            nested = any(root.startswith(os.path.join(known, "")) for _, known in self.writer.roots if known != root)
            keep = {image for image in (self.indexed if nested else self.out_of_reach) if image not in stage.fields}
            keep |= self.elsewhere - stage.fields.keys()
            stage.forget_under(os.path.join(root, ""), keep.__contains__, self.shared)
            self.kept |= keep
        for reader in self.sources.readers.values():
            cut = tuple(reader.unreadable)  # the caption may lie behind the break, the image before it
            keep = {image for image in self.indexed if image in self.out_of_reach or image.startswith(cut)}
            keep -= stage.fields.keys()
            for cover in self._covers(reader):
                bare = stage.forget_under(cover, keep.__contains__, self.shared)
                self._unlisted(bare, cover)
            self.kept |= keep

    def shared(self, image: str) -> bool:
        """Whether roots that this build does not read may know the image too.

        Their captions are not told from this build's but by the field: another field of the image stays, and so do
        captions that no line gives any more, until a build of all roots (`sync`) has the whole to compare with.
        """
        return image.startswith(self._others)

    @cached_property
    def _others(self) -> tuple[str, ...]:
        """What the keys of such roots begin with."""
        read = {*self.scan.roots, *(os.path.abspath(path) for path in self.sources.readers)}
        datasets = {path: how for path, how in self.writer.datasets.items() if path not in read}
        covers = [cover for how in datasets.values() for cover in how["covers"]]
        if not self.sources.readers:  # two folders: the rule for nested ones holds
            return tuple(covers)
        plain = [root for _, root in self.writer.roots if root not in read and root not in self.writer.datasets]
        return (*covers, *(os.path.join(root, "") for root in plain))

    def _unlisted(self, images: Iterable[str], cover: str) -> None:
        """Forgets files that a dataset listed once and does not list now: all of their captions have just gone."""
        for image in images:
            if (
                image not in self.indexed
                and not cover.endswith(SEPARATOR)
                and not image.startswith((*self._others, *(os.path.join(root, "") for root in self.scan.roots)))
                and next(self.writer.keys_under("text", captions_of(image)), None) is None
                and self.writer.known("image", image) is not None
            ):
                self.writer.remove("image", image)
                self.report.vanished += 1
