"""The same rows come out, however the index is searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import compose
from tests.support.pictures import COLOURS, SHAPES, draw, write_corpus
from tests.support.searching import build
from tests.support.stub import StubEncoder

QUERIES = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def answers(engine: Engine, options: SearchOptions) -> list[list[str]]:
    return [[hit.path for hit in engine.by_text(text, options)] for text in QUERIES]


def test_exact_index_answers_exactly(index: Path) -> None:
    engine = Engine(index)
    assert engine.reader.info.image.kind == "exact"
    assert answers(engine, SearchOptions(10)) == answers(engine, SearchOptions(10, exact=True))
    vectors = np.concatenate([block for block, _, _ in engine.reader.vectors("image")]).astype(np.float32)
    paths = [record["path"] for _, _, record in engine.reader.records("image")]
    query = StubEncoder().encode_texts(QUERIES[:1])[0]
    expected = [paths[i] for i in np.argsort(-(vectors @ query), kind="stable")[:10]]
    assert answers(engine, SearchOptions(10))[0] == expected


@pytest.fixture(scope="module")
def ivfpq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ivfpq")
    write_corpus(folder / "photos", 300, size=(32, 32))
    return build(folder / "photos", folder / "index", StubEncoder(), index_type="ivfpq")


def test_ivfpq_finds_what_exact_search_finds(ivfpq: Path) -> None:
    engine = Engine(ivfpq)
    image = engine.reader.info.image
    assert (image.kind, image.rows) == ("ivfpq", 300)
    assert image.tuning is not None and image.tuning.recall is not None and image.tuning.kind == "cross-modal"
    exact = answers(engine, SearchOptions(10, exact=True))
    found = answers(engine, SearchOptions(10))
    overlap = np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact, found, strict=True)])
    assert overlap >= 0.95
    assert image.tuning.recall >= 0.95
    assert answers(engine, SearchOptions(10, nprobe=image.nlist, rerank=300)) == exact
    for text in QUERIES[:5]:  # scores are exact whichever way a row was found
        scores = {hit.path: hit.score for hit in engine.by_text(text, SearchOptions(300, exact=True))}
        for hit in engine.by_text(text, SearchOptions(10)):
            assert hit.score == pytest.approx(scores[hit.path], abs=1e-5)


def test_ivfpq_gives_all_rows_when_asked_for_more(ivfpq: Path) -> None:
    hits = Engine(ivfpq).by_text("a red ring", SearchOptions(1000, nprobe=1))
    assert len(hits) == 300 and len({hit.path for hit in hits}) == 300


@pytest.mark.parametrize("k", [10**8, 10**30])
@pytest.mark.parametrize("alike", [None, 0.97])
def test_more_hits_than_there_are_rows(index: Path, k: int, alike: float | None) -> None:
    """All of them, in arrays of their size: no memory is taken for hits that cannot be."""
    engine = Engine(index)
    engine.encoder = StubEncoder()
    rows = engine.reader.count("image")
    hits = engine.by_text("a red ring", SearchOptions(k, alike=alike))
    assert sum(1 + len(hit.duplicates) for hit in hits) == rows
    answers = engine.query_many([compose("a red ring", k=k), compose("a blue ring", k=1)], SearchOptions())
    assert [len(answer) for answer in answers if isinstance(answer, list)] == [rows, 1]


def test_queries_for_many_hits_are_searched_a_few_at_a_time(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.search import nearest

    engine = Engine(index)
    engine.encoder = StubEncoder()
    texts = [compose(f"query {n}") for n in range(7)]
    whole = engine.query_many(texts, SearchOptions(10))
    monkeypatch.setattr(nearest, "_CELLS", 20)
    assert engine.query_many(texts, SearchOptions(10)) == whole


def test_a_reader_refuses_more_than_fits(index: Path) -> None:
    with IndexReader.open(index) as reader, pytest.raises(UsageError, match="ask for fewer hits"):
        reader.search("image", np.ones((1, 32), np.float32), 10**9)


def test_a_page_shows_nothing_of_the_page_before(tmp_path: Path) -> None:
    """400 pictures that are one: the hits of each page follow those of the last, whatever k it was asked with."""
    names = [f"{number * 7919 % 400:03}.png" for number in range(400)]
    for name in names:
        (tmp_path / "photos").mkdir(exist_ok=True)
        draw("red", "ring", size=(24, 24)).save(tmp_path / "photos" / name)
    for options in ({}, {"index_type": "ivfpq", "shard_rows": 150}):
        engine = Engine(build(tmp_path / "photos", tmp_path / f"index{len(options)}", StubEncoder(), **options))
        pages = [engine.by_text("a red ring", SearchOptions(k))[k - 40 :] for k in range(40, 401, 40)]
        assert [Path(hit.path).name for page in pages for hit in page] == sorted(names)
        assert [Path(hit.path).name for hit in engine.by_text("a red ring", SearchOptions(5))] == sorted(names)[:5]
