"""Generated captions in a build: photos without captions get some, as texts marked "generated": true.

They are kept from build to build, as vectors are: by the picture's content and the captioner. A photo that gets a
caption by a person loses the generated ones. What was generated is staged every few seconds like all else, so a killed
build goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from brivl_search.corpus.walk import ImageFile
from brivl_search.embedding.captioning import Describer, caption_images
from brivl_search.encoders.captioning import Captioner
from brivl_search.index import IndexWriter, Item
from brivl_search.index.keys import (
    caption_key,
    caption_parts,
    captions_of,
    generated_field,
    generated_language,
    is_generated,
)
from brivl_search.ingest.captions import CaptionStage, caption_item
from brivl_search.ingest.images import by_limit
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import BuildReport, Progress


@dataclass(frozen=True)
class Generating:
    """What is asked of a build.

    Attributes:
        languages: in which photos without captions get one; none: what was generated before is forgotten.
        describer: what writes; None where nothing is written.
    """

    languages: tuple[str, ...] = ()
    describer: Describer | None = None


class GeneratedStage:
    """Generates captions, and forgets those whose photo is gone, has changed, or has got a caption by a person.

    Args:
        writer, progress, report, options: of the build.
        captions: the stage that embeds texts; it has done its part.
        limit: of a path, the most megapixels that are decoded.
    """

    def __init__(
        self,
        writer: IndexWriter,
        progress: Progress,
        report: BuildReport,
        options: BuildOptions,
        captions: CaptionStage,
        limit: Callable[[str], float],
    ) -> None:
        self.writer, self.progress, self.report = writer, progress, report
        self.options, self.captions, self.limit = options, captions, limit

    def forget(self, *, everything: bool = False) -> None:
        """Forgets those that do not hold any more, or `everything`."""
        by_person: dict[str, bool] = {}
        for key in list(self.writer.keys_under("text")):
            if not is_generated(key):
                continue
            image = caption_parts(key)[0]
            state = self.writer.known("image", image)
            if image not in by_person:
                by_person[image] = self._by_person(image)
            if everything or state is None or by_person[image] or not is_generated(key, state.content):
                self.writer.remove("text", key)
                self.report.captions_removed += 1

    def _by_person(self, image: str) -> bool:
        """Whether an image has a caption that no build generated."""
        return not all(map(is_generated, self.writer.keys_under("text", captions_of(image))))

    def stage(self, files: Iterable[ImageFile], what: Generating) -> None:
        """Writes the captions that are missing of indexed files."""
        assert what.describer is not None
        captioner = what.describer.captioner
        todo: dict[str, list[ImageFile]] = {}  # by content: a copy of a photo gets its captions
        missing: dict[str, set[str]] = {}
        there: dict[str, str] = {}  # what stands for the field → a key with it
        for file in files:
            state = self.writer.known("image", file.path)
            if state is None or self._by_person(file.path):
                continue
            own = {caption_parts(key)[1]: key for key in self.writer.keys_under("text", captions_of(file.path))}
            there |= own
            wanted = {one: generated_field(one, state.content, captioner.fingerprint) for one in what.languages}
            if lacking := {one for one, name in wanted.items() if name not in own}:
                todo.setdefault(state.content, []).append(file)
                missing.setdefault(state.content, set()).update(lacking)
                for name, key in own.items():
                    if name not in wanted.values() and generated_language(name) in lacking:
                        self.writer.remove("text", key)  # another captioner's, or of another picture
        if not todo:
            return
        self.progress.phase("writing captions", sum(map(len, todo.values())))
        self._copy(todo, missing, there, captioner.fingerprint)
        first = [some[0] for some in todo.values()]
        content_of_file = {some[0].path: content for content, some in todo.items()}
        unread = 0
        for limit, files_up_to in by_limit(first, self.limit):
            for found in caption_images(
                files_up_to,
                what.describer,
                what.languages,
                workers=self.options.workers,
                batch_size=self.options.batch_size,
                max_megapixels=limit,
            ):
                content = content_of_file[found.decoded.file.path]
                texts = {name: some[0].text for name, some in found.captions.items() if some}
                self._put(todo[content], content, {n: t for n, t in texts.items() if n in missing[content]}, captioner)
                unread += found.decoded.pixels is None
        if unread:
            self.report.notes.append(f"{unread:,} images could not be read again, and got no caption")
        self.writer.flush()

    def _copy(
        self,
        todo: dict[str, list[ImageFile]],
        missing: dict[str, set[str]],
        there: dict[str, str],
        fingerprint: str,
    ) -> None:
        """Photos whose copy has captions get the same."""
        for content in list(todo):
            texts = {}
            for one in missing[content]:
                key = there.get(generated_field(one, content, fingerprint))
                record = None if key is None else self.writer.record("text", key)
                if record is not None:
                    texts[one] = (str(record["text"]), str(record.get("captioner", "")))
            if len(texts) == len(missing[content]):
                for one, (text, name) in texts.items():
                    self._write(todo[content], content, one, text, name, fingerprint)
                files = todo.pop(content)
                self.report.photos_captioned += len(files)
                self.progress.advance(len(files))

    def _put(self, files: list[ImageFile], content: str, texts: dict[str, str], captioner: Captioner) -> None:
        for language, text in texts.items():
            self._write(files, content, language, text, captioner.name, captioner.fingerprint)
        self.report.photos_captioned += len(files) if texts else 0
        self.progress.advance(len(files))

    def _write(
        self, files: list[ImageFile], content: str, language: str, text: str, captioner: str, fingerprint: str
    ) -> None:
        items: list[Item] = []
        for file in files:
            item = caption_item(file.path, language, text, {}, captioner)
            key = caption_key(file.path, generated_field(language, content, fingerprint), item.content)
            items.append(replace(item, key=key))
        self.captions.put(list(self.captions.read_as(items)))
        self.report.captions_generated += len(items)
