"""A matcher changes the order of the first hits and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.encoders import matching
from brivl_search.errors import UsageError
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.filters import Filter
from brivl_search.search.queries import compose
from tests.support.matchers import StubMatcher
from tests.support.pictures import write_corpus
from tests.support.searching import build, names
from tests.support.stub import StubEncoder


@pytest.fixture(autouse=True)
def _matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "load_matcher", lambda name, encoder, **options: StubMatcher(encoder))


def reranked(k: int = 10, top: int = 32, **more: Any) -> SearchOptions:
    return SearchOptions(k, rerank_with="stub", rerank_top=top, **more)


def test_the_first_hits_change_places_and_no_others(index: Path) -> None:
    engine = Engine(index)
    plain = engine.by_text("a red ring", SearchOptions(30))
    hits = engine.by_text("a red ring", reranked(30, 5))
    assert sorted(names(hits[:5])) == sorted(names(plain[:5])) and names(hits[:5]) != names(plain[:5])
    assert names(hits[5:]) == names(plain[5:])
    assert [hit.rank for hit in hits] == list(range(1, 31))
    scores = [hit.rerank for hit in hits[:5]]
    assert all(score is not None for score in scores) and scores == sorted(scores, key=lambda s: -(s or 0))
    assert all(hit.rerank is None for hit in hits[5:])
    assert hits[0].to_dict()["rerank"] == round(hits[0].rerank or 0, 4) and "rerank" not in hits[6].to_dict()


def test_score_and_match_stay_those_of_the_towers(index: Path) -> None:
    engine = Engine(index)
    plain = {hit.key: hit for hit in engine.by_text("a red ring", SearchOptions(8))}
    for hit in engine.by_text("a red ring", reranked(8, 8)):
        assert (hit.score, hit.match) == (plain[hit.key].score, plain[hit.key].match)


def test_few_hits_are_chosen_among_the_first(index: Path) -> None:
    engine = Engine(index)
    whole = engine.by_text("a red ring", reranked(30, 12))
    assert names(engine.by_text("a red ring", reranked(3, 12))) == names(whole[:3])
    assert names(engine.by_text("a red ring", reranked(20, 12))) == names(whole[:20])  # so pages fit together
    assert len(engine.by_text("a red ring", reranked(50, 1000))) == 30  # more than there are: all


def test_a_picture_among_captions(index: Path, shapes: Path) -> None:
    engine = Engine(index)
    hits = engine.by_image(shapes / "purple-triangle.png", reranked(4, 4))
    lengths = [len(hit.text or "") for hit in hits]
    assert lengths == sorted(lengths, reverse=True) and {hit.kind for hit in hits} == {"text"}
    content = (shapes / "purple-triangle.png").read_bytes()
    assert [hit.text for hit in engine.query(compose(image=[content]), reranked(4, 4))] == [hit.text for hit in hits]


def test_what_is_no_pair_is_refused(index: Path, shapes: Path) -> None:
    engine = Engine(index)
    for query, target, said in (
        (compose("a red ring", minus=["circle"]), "auto", "a sum of several"),
        (compose("a red ring"), "text", "captions by a text"),
        (compose(image=[shapes / "red-ring.png"]), "image", "reads a picture with captions"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            engine.query(query, reranked(), target=target)  # type: ignore[arg-type]
        assert caught.value.code == "no_rerank"
    with pytest.raises(UsageError, match=r"`rerank_top` 0: give a whole number from 1 on"):
        reranked(top=0)


def test_where_there_are_no_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 5, with_captions=False)
    engine = Engine(build(tmp_path / "photos", tmp_path / "index", encoder))
    with pytest.raises(UsageError, match="where the index has any"):
        engine.by_image(paths[0], reranked())
    assert len(engine.by_text("x", reranked())) == 5


def test_filters_least_scores_and_folding_come_first(index: Path, shapes: Path) -> None:
    engine = Engine(index)
    some = reranked(10, 32, filter=Filter.of(glob=["*-ring.png"]))
    found = engine.by_text("a red ring", some)
    assert len(found) == 6 and all(name.endswith("-ring.png") for name in names(found))
    least = engine.by_text("a red ring", SearchOptions(30))[9].score
    high = engine.by_text("a red ring", reranked(30, 32, min_score=least))
    assert len(high) == 10 and all(hit.score >= least for hit in high)
    folded = engine.by_text("a red ring", reranked(5, 8, alike=0.5))
    plain = engine.by_text("a red ring", SearchOptions(8, alike=0.5))
    groups = {hit.key: {one.key for one in hit.duplicates} for hit in plain}
    assert folded and all(groups[hit.key] == {one.key for one in hit.duplicates} for hit in folded)


def test_a_picture_that_cannot_be_read_keeps_its_place(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 8)
    engine = Engine(build(tmp_path / "photos", tmp_path / "index", encoder))
    plain = engine.by_text("a red circle", SearchOptions(8))
    gone, broken = Path(plain[2].path), Path(plain[0].path)
    gone.unlink()
    broken.write_bytes(b"no picture")
    hits = engine.by_text("a red circle", reranked(8))
    assert hits[2].path == str(gone) and hits[0].path == str(broken)
    assert hits[2].rerank is None and hits[0].rerank is None and sum(hit.rerank is not None for hit in hits) == 6
    assert sorted(hit.path for hit in hits) == sorted(map(str, paths))
    unread = engine.reranker("stub").unread
    assert sorted(unread) == sorted([str(gone), str(broken)]) and "vanished" in unread[str(gone)]


def test_a_picture_is_read_once_until_its_file_changes(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 6)
    engine = Engine(build(tmp_path / "photos", tmp_path / "index", encoder))
    first = engine.by_text("a red circle", reranked(6))
    matcher = engine.reranker("stub").matcher
    assert isinstance(matcher, StubMatcher) and len(matcher.read) == 6
    assert names(engine.by_text("一个绿色的十字", reranked(6))) and len(matcher.read) == 6
    Path(first[0].path).write_bytes(Path(first[1].path).read_bytes() + b"\0")
    engine.by_text("a red circle", reranked(6))
    assert matcher.read[6:] == [first[0].path]


def test_many_queries_and_what_is_wrong_with_one(index: Path) -> None:
    asked = [compose("a red ring"), compose("a red ring", plus=["dog"]), compose("a blue cross")]
    answers = Engine(index).query_many(asked, reranked(4))
    assert isinstance(answers[1], UsageError)
    for at in (0, 2):
        found = answers[at]
        assert isinstance(found, list) and len(found) == 4 and all(hit.rerank is not None for hit in found)


def test_the_cosine_has_its_weight(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubMatcher, "cosine_weight", 1e6)
    engine = Engine(index)
    assert names(engine.by_text("a red ring", reranked(9))) == names(engine.by_text("a red ring", SearchOptions(9)))
    assert np.isfinite(engine.by_text("a red ring", reranked(1))[0].rerank or np.nan)
