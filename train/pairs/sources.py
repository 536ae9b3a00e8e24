"""The records of a crawl: JSON lines of several files, read by byte offset, judged by the text rules in processes."""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from brivl_search.errors import CorpusError
from train.pairs.texts import TextJudge, TextRules

CHUNK_LINES = 1000
MAX_LINE_BYTES = 4 << 20


@dataclass(frozen=True)
class Source:
    """A file of records: `name` goes into the output; images are relative to `folder`."""

    name: str
    file: Path
    folder: Path


@dataclass(frozen=True)
class Fields:
    """Where a record keeps what: the first of `image` that it has is its picture; texts are all of `texts`."""

    image: tuple[str, ...] = ("path", "image", "file")
    url: tuple[str, ...] = ("url", "image_url")
    texts: tuple[str, ...] = ("title", "text")


@dataclass(slots=True)
class Record:
    """One line after the text rules.

    Attributes:
        source: its number. end: byte after the line, from where reading goes on.
        removed: the rule that removes it, "" for none; then `example` says of what.
        image: absolute path, or the address in a run without images.
        url: as given, "" for none.
        texts: (language, text), cleaned.
        dropped: (rule, text) of single texts that went while another stayed.
    """

    source: int
    end: int
    removed: str = ""
    example: str = ""
    image: str = ""
    url: str = ""
    texts: tuple[tuple[str, str], ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()


Chunk = tuple[int, list[bytes], list[int]]


def read_chunks(sources: Sequence[Source], start: tuple[int, int]) -> Iterator[Chunk]:
    """Lines of all sources from a place on: (source, lines, end of each)."""
    for number in range(start[0], len(sources)):
        with sources[number].file.open("rb") as handle:
            place = start[1] if number == start[0] else 0
            handle.seek(place)
            while True:
                lines, ends = [], []
                for line in itertools.islice(iter(partial(handle.readline, MAX_LINE_BYTES + 1), b""), CHUNK_LINES):
                    place += len(line)
                    while (
                        len(line) > MAX_LINE_BYTES and not line.endswith(b"\n") and (rest := handle.readline(1 << 20))
                    ):
                        place += len(rest)
                        line = line[: MAX_LINE_BYTES + 1] + rest[-1:]
                    lines.append(line)
                    ends.append(place)
                if not lines:
                    break
                yield number, lines, ends


class Reader:
    """Judges the lines of a source; in a worker it is made once for every chunk's settings."""

    def __init__(self, rules: TextRules, fields: Fields, *, images: bool) -> None:
        self.judge, self.fields, self.images = TextJudge(rules), fields, images

    def record(self, line: bytes, source: int, end: int, folder: str) -> Record | None:
        """None for a blank line."""
        if not line.strip():
            return None
        shown = line[:200].decode("utf-8", "replace")
        if len(line) > MAX_LINE_BYTES:
            return Record(source, end, "bad line", shown)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return Record(source, end, "bad line", shown)
        if not isinstance(row, dict):
            return Record(source, end, "bad line", shown)
        image, url = self._first(row, self.fields.image), self._first(row, self.fields.url)
        if self.images and not image:
            return Record(source, end, "no image file", url or shown)
        kept: list[tuple[str, str]] = []
        dropped: list[tuple[str, str]] = []
        for text in self._texts(row):
            cleaned, language, rule = self.judge.judge(text)
            if rule:
                dropped.append((rule, _without_secrets(rule, cleaned)))
            elif all(cleaned != other for _, other in kept):
                kept.append((language, cleaned))
        if not kept:
            rule, example = dropped[-1] if dropped else ("no text", shown)
            return Record(source, end, f"text: {rule}" if rule != "no text" else rule, example)
        place = os.path.normpath(os.path.join(folder, image)) if image else url
        return Record(source, end, "", "", place, url, tuple(kept), tuple(dropped))

    def _first(self, row: dict[str, Any], names: Sequence[str]) -> str:
        for name in names:
            value = row.get(name)
            if isinstance(value, str) and value and "\0" not in value and _encodes(value):
                return value
        return ""

    def _texts(self, row: dict[str, Any]) -> Iterator[str]:
        for name in self.fields.texts:
            value = row.get(name)
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and _encodes(text):
                    yield text[: 4 * MAX_LINE_BYTES]


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    return True


def _without_secrets(rule: str, text: str) -> str:
    """An example for the report, which must not spread what was removed because it is personal."""
    return "(not shown)" if rule.startswith("personal data") else text[:120]


_reader: tuple[Any, Reader] | None = None


def judge_chunk(chunk: Chunk, folder: str, settings: tuple[TextRules, Fields, bool]) -> list[Record]:
    """The records of a chunk. Runs in a worker."""
    global _reader
    if _reader is None or _reader[0] != settings:
        rules, fields, images = settings
        _reader = (settings, Reader(rules, fields, images=images))
    source, lines, ends = chunk
    judged = (_reader[1].record(line, source, end, folder) for line, end in zip(lines, ends, strict=True))
    return [record for record in judged if record is not None]


def judged_records(
    sources: Sequence[Source], start: tuple[int, int], settings: tuple[TextRules, Fields, bool], workers: int
) -> Iterator[Record]:
    """All records from a place on, in order; `workers` processes judge a few chunks ahead (0: this one does).

    Raises:
        CorpusError: a worker process died.
    """
    chunks = read_chunks(sources, start)
    folders = [os.path.abspath(source.folder) for source in sources]
    if not workers:
        for chunk in chunks:
            yield from judge_chunk(chunk, folders[chunk[0]], settings)
        return
    from pebble import ProcessPool

    from brivl_search.corpus.decode_worker import settle_in
    from brivl_search.corpus.light_spawn import light_context

    pool = ProcessPool(max_workers=workers, initializer=settle_in, context=light_context())
    try:
        ahead: deque[Any] = deque()
        for chunk in chunks:
            ahead.append(pool.schedule(judge_chunk, args=(chunk, folders[chunk[0]], settings)))
            if len(ahead) > 2 * workers:
                yield from _result(ahead.popleft())
        while ahead:
            yield from _result(ahead.popleft())
    finally:
        pool.stop()
        pool.join()


def _result(future: Any) -> list[Record]:
    from concurrent.futures import CancelledError
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()  # type: ignore[no-any-return]
    except (BrokenProcessPool, CancelledError, OSError) as error:
        raise CorpusError(f"a process that judges texts died ({error}): run the same command again") from None
