"""Captions in fancy spellings and with unknown words; indexes from before texts were read as they are now."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.index.verify import verify
from brivl_search.ingest import spelled
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.run import add
from brivl_search.ingest.spelled import stale_captions
from brivl_search.transfer.export import export
from brivl_search.transfer.imports import import_folder
from tests.support.building import Silent, build, checksums, texts
from tests.support.pictures import write_corpus, write_lines
from tests.support.stub import StubEncoder
from tests.support.words import WordEncoder

FANCY, PLAIN = "ａ ｄｏｇ’s ball", "a dog's ball"


def site(folder: Path, *captions: str) -> Path:
    name = write_corpus(folder / "photos", 1, with_captions=False)[0].name
    write_lines(folder / "photos" / "captions.jsonl", [{"image": f"images/{name}", "en": list(captions)}])
    return folder / "photos"


def vectors(index: Path) -> dict[str, np.ndarray]:
    with IndexReader.open(index) as reader:
        blocks = list(reader.items("text"))
    return {item.record["text"]: row for items, rows in blocks for item, row in zip(items, rows, strict=True)}


def test_a_fancy_caption_is_shown_as_written_and_embedded_as_read(tmp_path: Path) -> None:
    photos, index, encoder = site(tmp_path, FANCY, PLAIN, "a cat"), tmp_path / "index", WordEncoder()
    report = build(photos, index, encoder)
    assert (report.captions, report.captions_embedded, report.captions_reused) == (3, 2, 1)
    found = vectors(index)
    assert set(found) == {FANCY, PLAIN, "a cat"} and np.array_equal(found[FANCY], found[PLAIN])
    assert stale_captions(index, encoder) == 0 and verify(index).ok
    again = build(photos, index, encoder)
    assert again.captions_unchanged == 3 and again.commit is not None and not again.commit.text.added


def test_an_older_index_is_named_and_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, index = site(tmp_path, FANCY, PLAIN, "a cat", "一只狗，很可爱！"), tmp_path / "index"
    older = StubEncoder()  # reads texts as they are written
    with monkeypatch.context() as then:
        then.setattr(spelled, "READING", 0)
        build(photos, index, older)
        assert stale_captions(index, older) == 0
    encoder = WordEncoder()
    encoder.spelling = type(encoder.spelling)(lambda char: char.isascii() or char >= "\u3000")
    assert stale_captions(index, encoder) == 1
    before = vectors(index)
    assert not np.array_equal(before[FANCY], before[PLAIN])

    export(index, tmp_path / "export", "npy")  # and what is moved as vectors stays as old as it is
    import_folder(tmp_path / "export", tmp_path / "other", encoder.encode_texts)
    assert stale_captions(tmp_path / "other", encoder) == 1

    report = build(photos, index, encoder)
    assert (report.captions_embedded + report.captions_reused, report.captions_unchanged) == (1, 3)
    after = vectors(index)
    assert np.array_equal(after[FANCY], after[PLAIN]) and len(after) == 4
    assert all(np.array_equal(after[text], before[text]) for text in after if text != FANCY)
    assert stale_captions(index, encoder) == 0 and verify(index).ok
    settled = checksums(index)
    assert build(photos, index, encoder).captions_unchanged == 4 and checksums(index) == settled


def test_a_build_without_changes_reads_no_caption_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, index, encoder = site(tmp_path, FANCY, "a cat"), tmp_path / "index", WordEncoder()
    build(photos, index, encoder)
    monkeypatch.setattr(encoder, "spelled", lambda texts: [] if not texts else pytest.fail("read again"))
    assert build(photos, index, encoder).captions_unchanged == 2


def test_captions_with_unknown_words_are_counted(tmp_path: Path) -> None:
    photos, index, encoder = site(tmp_path, "собака", "🐶", "a dog 🐶", "a dog"), tmp_path / "index", WordEncoder()
    report = build(photos, index, encoder)
    assert (report.unknown_captions, report.unread_captions) == (3, 2)
    assert report.unknown_words == {"🐶": 2, "собака": 1}
    again = build(photos, index, encoder)
    assert (again.unknown_captions, again.unread_captions) == (0, 0)


def test_caption_fields_that_nobody_has(tmp_path: Path, encoder: StubEncoder) -> None:
    photos, index = site(tmp_path, "a dog"), tmp_path / "index"
    build(photos, index, encoder)
    with pytest.raises(
        UsageError, match=r"`captions` nosuch: no caption line has such a field; fields there: en"
    ) as no:
        build(photos, index, encoder, caption_fields=("nosuch",))
    assert no.value.details == {"fields": ["nosuch"], "known": ["en"]}
    with pytest.raises(UsageError, match="no caption line has such a field"):
        options = BuildOptions(workers=0, caption_fields=("zh", "fr"))
        add([photos / "captions.jsonl"], index, encoder, options, Silent())
    assert len(texts(index)) == 1  # nothing was changed
    report = build(photos, index, encoder, caption_fields=("en", "nosuch"))
    assert report.missing_fields == ["nosuch"] and report.captions == 1
    table = photos / "t.csv"
    table.write_text(f"image,en\nimages/{next((photos / 'images').iterdir()).name},a dog\n")
    with pytest.raises(UsageError, match="fields there: en"):
        build(table, tmp_path / "other", encoder, caption_fields=("nosuch",))


def test_a_caption_file_of_another_encoding(tmp_path: Path, encoder: StubEncoder) -> None:
    photos, index = site(tmp_path, "一只狗", "a dog"), tmp_path / "index"
    file = photos / "captions.jsonl"
    record = json.loads(file.read_text("utf-8"))
    file.write_bytes(json.dumps(record, ensure_ascii=False).encode("gb18030"))
    report = build(photos, index, encoder)
    assert report.captions == 0 and report.found == 1
    (line,) = report.bad_captions
    assert "invalid UTF-8" in line and "the file seems to be GBK: give `encoding` gb18030" in line
    report = build(photos, index, encoder, encoding="gb18030")
    assert report.bad_captions == [] and sorted(text for *_, text in texts(index)) == ["a dog", "一只狗"]
