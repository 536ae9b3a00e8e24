"""The text side of a build: captions become rows, and their extra fields join the records of texts and images."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from brivl_search.corpus import fields as extra
from brivl_search.corpus.captions import BadLine, CaptionLine
from brivl_search.corpus.fields import Fields
from brivl_search.corpus.names import by_nfc, nfc, spellings
from brivl_search.corpus.spelling import nothing_known
from brivl_search.corpus.text import NOT_UTF8
from brivl_search.encoders.base import Encoder, spelled, unknown_words
from brivl_search.index import IndexWriter, Item
from brivl_search.index.keys import caption_key, caption_parts, is_generated
from brivl_search.ingest.spelled import content_of, size_before, size_now

if TYPE_CHECKING:
    from brivl_search.ingest.report import BuildReport, Progress

TEXT_BATCH = 256


class CaptionStage:
    """Stages the captions of indexed images as texts, forgets those that are gone, and sets the fields of images.

    Args:
        writer, encoder, progress, report: of the build.
        indexed: the images that the index will hold, as far as this build looked.
        forget: whether captions that no line gives any more leave the index.
        flush: called between batches.
    """

    def __init__(
        self,
        writer: IndexWriter,
        encoder: Encoder,
        progress: Progress,
        report: BuildReport,
        *,
        indexed: set[str],
        forget: bool,
        flush: Callable[[], None],
    ) -> None:
        self.writer, self.encoder, self.progress, self.report = writer, encoder, progress, report
        self.indexed, self.forget, self.flush = indexed, forget, flush
        self.had_texts = next(writer.keys_under("text"), None) is not None
        self.wanted: dict[str, Item] = {}
        self._by_nfc: dict[str, str] | None = None
        self.fields: dict[str, Fields] = {}  # of each image that a line names
        self.not_text: set[str] = set()  # files with lines that are not of their encoding

    def read(self, lines: Iterable[CaptionLine | BadLine], *, known: bool = False) -> None:
        """Takes in caption lines; those that are bad or of images that are not indexed are reported.

        `known`: also those of images that the index holds and that this build does not look at.
        """
        for line in lines:
            if isinstance(line, BadLine):
                self.report.bad_captions.append(str(line))
                if NOT_UTF8 in line.reason:
                    self.not_text.add(line.file)
                continue
            if line.image not in self.indexed:
                line = self._moved(line)
            if line.image not in self.indexed and not line.image.isascii():
                line = replace(line, image=self._spelled(line.image))
            if line.image not in self.indexed and (
                (self.forget and not known) or not self.writer.known("image", line.image)
            ):
                what = "is not among the indexed images"
                self.report.bad_captions.append(f"{line.file}:{line.line}: {line.image} {what}")
            else:
                extra.merge(self.fields.setdefault(line.image, {}), line.fields)
                for name, text in line.texts:
                    item = caption_item(line.image, name, text, line.fields, line.captioner)
                    earlier = self.wanted.get(item.key)
                    if earlier is not None and earlier.record != item.record:
                        merged: Fields = dict(earlier.record.get("fields", {}))
                        extra.merge(merged, line.fields)
                        # What a person wrote too is a person's.
                        by = line.captioner and str(earlier.record.get("captioner", ""))
                        item = caption_item(line.image, name, text, merged, by)
                    self.wanted[item.key] = item

    def _moved(self, line: CaptionLine) -> CaptionLine:
        """The line with its image where that is now, if it was written before the image's root moved."""
        moved = self.writer.moves.here(line.image)
        known = moved in self.indexed or self.writer.known("image", moved) is not None
        return replace(line, image=moved) if moved != line.image and known else line

    def _spelled(self, image: str) -> str:
        """An image's path as the index has it: a caption file may spell é in one character, the disk in two."""
        if self._by_nfc is None:
            self._by_nfc = by_nfc(self.indexed)
        if (there := self._by_nfc.get(nfc(image))) is not None and there in self.indexed:
            return there
        return next((one for one in spellings(image) if self.writer.known("image", one)), image)

    def forget_under(
        self, prefix: str, keep: Callable[[str], bool], shared: Callable[[str], bool] = lambda image: False
    ) -> set[str]:
        """Forgets the captions of images under a prefix that no line gave.

        Args:
            prefix: of the images' keys.
            keep: an image whose captions stay.
            shared: an image that others give captions too: only the fields that a line gave are this build's.

        Returns:
            The images that lost a caption.
        """
        lost: set[str] = set()
        named = {(str(item.record["image"]), str(item.record["field"])) for item in self.wanted.values()}
        for key, state in self.writer.states_under("text", prefix):
            image, name = caption_parts(key)
            if state.origin == "import" or is_generated(key):
                continue
            if key not in self.wanted and not keep(image) and not (shared(image) and (image, name) not in named):
                self.writer.remove("text", key)
                self.report.captions_removed += 1
                lost.add(image)
        return lost

    def stage(self) -> None:
        """Embeds what is new."""
        self.report.captions = len(self.wanted)
        todo = self._news()
        self.report.captions_unchanged = len(self.wanted) - len(todo)
        if not todo:
            return
        self.progress.phase("captions", len(todo))
        fresh = self.put(todo, self.progress.advance)
        self.report.captions_embedded += fresh
        self.report.captions_reused += len(todo) - fresh

    def put(self, items: Sequence[Item], advance: Callable[[int], None] = lambda steps: None) -> int:
        """Stages captions. Texts that are not embedded yet are; so many were not."""
        embedded = 0
        for start in range(0, len(items), TEXT_BATCH):
            part = items[start : start + TEXT_BATCH]
            fresh = {item.content: str(item.record["text"]) for item in part}
            fresh = {key: text for key, text in fresh.items() if not self.writer.has_vector("text", key)}
            if fresh:
                texts = list(fresh.values())
                self._count_unknown(texts)
                self.report.cut_captions += sum(cut > 0 for cut in self.encoder.cut_tokens(texts))
                self.writer.stage_vectors("text", list(fresh), self.encoder.encode_texts(texts))
            embedded += len(fresh)
            for item in part:
                self.writer.put("text", item)
            advance(len(part))
            self.flush()
        return embedded

    def _news(self) -> list[Item]:
        """Captions that the index does not hold as they are now, with the content that the encoder's reading gives."""
        fresh: list[Item] = []
        older: list[Item] = []  # held, but the encoder may read them otherwise now
        for item in self.wanted.values():
            state = self.writer.known("text", item.key)
            if state is None or state.size not in (item.size, size_before(item.size)):
                fresh.append(item)
            elif state.size != item.size:
                older.append(item)
        changed = []
        for item in self.read_as(older):
            state = self.writer.known("text", item.key)
            if state is None or state.content != item.content:
                changed.append(item)
        return [*self.read_as(fresh), *changed]

    def read_as(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items with the content of what the encoder reads."""
        for start in range(0, len(items), TEXT_BATCH):
            part = items[start : start + TEXT_BATCH]
            read = spelled(self.encoder, [str(item.record["text"]) for item in part])
            for item, text in zip(part, read, strict=True):
                yield item if text == item.record["text"] else replace(item, content=content_of(text))

    def _count_unknown(self, texts: Sequence[str]) -> None:
        """Counts captions of which the encoder knows no word, or not all words, among those that are embedded."""
        for text, words in zip(texts, unknown_words(self.encoder, texts), strict=True):
            if words:
                self.report.unknown_words.update(words)
                self.report.unknown_captions += 1
                self.report.unread_captions += nothing_known(text, words)

    def set_fields(self, keep: Callable[[str], bool], shared: Callable[[str], bool] = lambda image: False) -> None:
        """Brings the fields in the records of images in step; a record that changes costs no embedding.

        Args:
            keep, shared: as of `forget_under`.
        """
        for image, fields in self._wanted_fields(lambda image: keep(image) or shared(image)):
            record = self.writer.record("image", image)
            if record is None:
                continue
            before = record.pop("fields", {})
            if before == fields or (state := self.writer.known("image", image)) is None:
                continue
            if not self.forget or shared(image) or state.origin == "import":
                fields = {**before, **fields}
            if before != fields:
                record |= {"fields": fields} if fields else {}
                self.writer.put("image", Item(image, state.content, state.size, state.mtime_ns, record, state.origin))

    def _wanted_fields(self, keep: Callable[[str], bool]) -> Iterator[tuple[str, Fields]]:
        if not (self.forget and (self.fields or self.had_texts)):
            yield from self.fields.items()  # plain photos have no fields, now or before: no record is looked at
            return
        for image in self.indexed:
            if image in self.fields or not keep(image):
                yield image, self.fields.get(image, {})


def caption_item(image: str, name: str, text: str, fields: Mapping[str, object], captioner: str = "") -> Item:
    """The item of a caption that is read as it is written.

    Its key is of the text as it is written. Its size is a sum of its fields, and says how it was read: so a change of
    either is seen without its record. `captioner` is the model that wrote it, "" for a person.
    """
    content = content_of(text)
    record: dict[str, object] = {"text": text, "field": name, "image": image}
    beside: dict[str, object] = {"fields": dict(fields)} if fields else {}
    if captioner:
        beside |= {"generated": True, "captioner": captioner}
    size = 0
    if beside:
        summed = beside if captioner else beside["fields"]
        size = zlib.crc32(json.dumps(summed, sort_keys=True).encode())
    return Item(caption_key(image, name, content), content, size_now(size), record=record | beside)
