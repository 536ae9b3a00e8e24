"""Re-ordering by regions that the index keeps, and by files where it keeps none."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.api import Index
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.one_tower.matcher import OneTowerMatcher
from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.ingest.options import BuildOptions
from brivl_search.ingest.report import Silent
from brivl_search.ingest.run import build_index
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import Query, Term
from brivl_search.search.rerank import QueryPicture
from tests.support.matchers import make_matcher
from tests.support.pictures import write_corpus
from tests.support.tiny import make_checkpoint


class Made:
    """An index that keeps regions, its photos, and two matchers."""

    def __init__(self, models: Path, folder: Path) -> None:
        self.matcher, self.other = models / "matcher", models / "other"
        self.photos = write_corpus(folder / "photos", 4, (64, 64))
        self.index = folder / "index"
        self.encoder = BriVLEncoder(models / "towers", device="cpu", precision="fp32")
        options = BuildOptions(workers=0, keep_regions=str(self.matcher))
        build_index([folder / "photos"], self.index, self.encoder, options, Silent())

    def engine(self) -> Engine:
        engine = Engine(self.index, device="cpu")
        engine.encoder = self.encoder  # this folder's other tests have a stub in its place
        return engine

    def order(self, engine: Engine, matcher: Path, text: str = "a red dog") -> list[tuple[str, float | None]]:
        hits = engine.by_text(text, SearchOptions(8, rerank_with=str(matcher), rerank_top=8))
        return [(Path(hit.path).name, hit.rerank) for hit in hits]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    towers = make_checkpoint(folder / "towers")
    make_matcher(folder / "matcher", towers)
    make_matcher(folder / "other", towers, seed=5)
    return folder


@pytest.fixture
def made(models: Path, tmp_path: Path) -> Made:
    return Made(models, tmp_path)


def test_no_file_is_read_where_regions_are_kept(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made.engine()
    from_files = made.order(engine, made.other)
    assert all(score is not None for _, score in from_files)
    read: list[int] = []
    whole = OneTowerMatcher.pictures

    def counted(self: OneTowerMatcher, pixels: np.ndarray, origins: Any) -> Any:
        read.append(len(pixels))
        return whole(self, pixels, origins)

    monkeypatch.setattr(OneTowerMatcher, "pictures", counted)
    kept = made.order(engine, made.matcher)
    assert not read
    fresh = made.engine()
    monkeypatch.setattr(IndexReader, "regions", lambda *given: None)
    again = made.order(fresh, made.matcher)
    assert sum(read) == 4
    assert dict(kept) == pytest.approx(dict(again), abs=0.02)  # bytes instead of float16


def test_sync_of_python_keeps_and_drops_regions(made: Made) -> None:
    with Index(made.engine()) as index:
        before = index.info.image.regions
        assert before is not None and before.name == str(made.matcher)
        report = index.sync(keep_regions=str(made.other), workers=0)
        after = index.info.image.regions
        assert (report.embedded, report.regions) == (0, 4)
        assert after is not None and (after.name, index.info.image.with_regions) == (str(made.other), 4)
        assert after.fingerprint != before.fingerprint
        index.sync(workers=0)  # None: as before
        assert index.info.image.regions == after
        with pytest.raises(UsageError, match="no matcher"):
            index.sync(keep_regions=str(made.index / "nothing"), workers=0)
        assert index.info.image.regions == after
        index.sync(keep_regions="none", workers=0)
        assert index.info.image.regions is None


def test_a_picture_that_is_gone_is_re_ordered_all_the_same(made: Made) -> None:
    before = made.order(made.engine(), made.matcher)
    made.photos[3].unlink()
    engine = made.engine()
    assert made.order(engine, made.matcher) == before
    assert not engine.reranker(str(made.matcher)).unread
    places = dict(made.order(engine, made.other))
    assert places[made.photos[3].name] is None  # another matcher's are not kept


def test_damaged_regions_are_read_from_the_picture(made: Made) -> None:
    before = made.order(made.engine(), made.matcher)
    engine = made.engine()
    with IndexReader.open(made.index) as reader:
        facts = reader.info.image.regions
        assert facts is not None
        shard = reader._parts["image"][0].shard
        raw = shard.regions(2, facts.fingerprint)
        name = Path(reader.record("image", 0, 2)["path"]).name
    assert raw is not None
    status = shard.path.stat()
    with shard.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(raw)
        while at >= 0:  # pages that LMDB has replaced hold it as well
            content[at + 40] ^= 0x55
            at = content.find(raw, at)
    os.utime(shard.path, ns=(status.st_atime_ns, status.st_mtime_ns))  # damage that changes no time
    assert engine.reader.regions(0, 2, facts.fingerprint) is None
    after = made.order(engine, made.matcher)
    assert dict(after) == pytest.approx(dict(before), abs=0.02)
    (made.photos[0].parent / name).unlink()
    after = made.order(made.engine(), made.matcher)
    assert [score for found, score in after if found == name] == [None]


def test_a_picture_of_the_index_among_captions(made: Made) -> None:
    engine = made.engine()
    options = SearchOptions(5, rerank_with=str(made.matcher), rerank_top=5)
    path = str(made.photos[1])
    by_file = engine.by_image(path, options, target="text")
    query = Query((Term(b"", "image"),), target="text")
    vector = engine.encoder.encode_images([path])[0]
    (by_key,) = engine.query_many([query], options, vectors=[vector], shown=[QueryPicture(key=path)])
    assert isinstance(by_key, list)
    assert [hit.text for hit in by_key] == [hit.text for hit in by_file]
    assert [hit.rerank for hit in by_key] == pytest.approx([hit.rerank for hit in by_file], abs=0.02)
