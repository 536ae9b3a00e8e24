"""Words that the encoder does not know are named, and where it knows none there is no match."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from brivl_search import encoders
from brivl_search.api import Index
from brivl_search.encoders import registry
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import UnknownWordsWarning, UsageError
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import compose
from brivl_search.search.words import say_unknown
from tests.support.pictures import write_corpus
from tests.support.searching import build
from tests.support.site import Ended
from tests.support.words import WordEncoder


@pytest.fixture
def engine(index: Path) -> Engine:
    engine = Engine(index)
    encoder = WordEncoder()
    encoder.calibration = Calibration(10, -5)
    engine.encoder = encoder
    return engine


@pytest.mark.parametrize(
    ("text", "words", "match"),
    [
        ("a red ring", [], True),
        ("ａ ｒｅｄ ring", [], True),
        ("собака", ["собака"], False),
        ("🐶", ["🐶"], False),
        ("🐶 собака!", ["🐶", "собака"], False),
        ("a red ring 🐶", ["🐶"], True),
        ("a red ring🐶🐶", ["🐶"], True),
    ],
)
def test_match_is_withheld_where_no_word_is_known(engine: Engine, text: str, words: list[str], match: bool) -> None:
    query = compose(text)
    assert engine.unknown_words(query) == words and engine.knows_nothing(query) is not match
    hits = engine.query(query, SearchOptions(3))
    assert len(hits) == 3 and all((hit.match is not None) is match for hit in hits)
    if not match:
        with pytest.raises(UsageError, match="`min_match` needs a match, and the encoder knows no word") as caught:
            engine.query(query, SearchOptions(3, min_match=0.5))
        assert caught.value.code == "no_match" and caught.value.details["unknown_words"] == words


def test_a_sum_names_the_words_of_all_its_texts(engine: Engine) -> None:
    query = compose("a red ring", plus=["2:собака"], minus=["🐶"])
    assert engine.unknown_words(query) == ["собака", "🐶"] and not engine.knows_nothing(query)
    assert engine.knows_nothing(compose("собака", plus=["🐶"]))
    assert engine.unknown_words(compose(image=[b"x"])) == [] and not engine.knows_nothing(compose(image=[b"x"]))


def test_the_python_api_warns(engine: Engine) -> None:
    index = Index(engine)
    with pytest.warns(UnknownWordsWarning, match=r"knows no word of the text \(собака\)") as told:
        index.query("собака", k=1)
    assert [one.message.words for one in told] == [("собака",)]  # type: ignore[union-attr]
    assert told[0].filename == __file__
    with pytest.warns(UnknownWordsWarning, match="does not know 🐶: the rest of the text was searched"):
        index.query_many(["a red ring", "a red ring 🐶"], k=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.query("ａ ｒｅｄ ring", k=1)


def test_many_and_long_words_are_cut_short() -> None:
    said = say_unknown([f"слово{number}" for number in range(20)] + ["д" * 500], True)
    assert "слово7 and 13 more" in said and len(said) < 200
    assert "д" * 41 not in say_unknown(["д" * 500], False)


def test_tune_names_the_words_of_its_queries_that_are_unknown(
    tmp_path: Path, run_here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encoders, registry):
        monkeypatch.setattr(module, "load_encoder", lambda *_, **__: WordEncoder())
    write_corpus(tmp_path / "p", 2)
    index = build(tmp_path / "p", tmp_path / "ix", WordEncoder())
    (tmp_path / "q.txt").write_text("狗\n狗🐶\nсобака\n", encoding="utf-8")
    ended = run_here("tune", "--queries", str(tmp_path / "q.txt"), "-i", str(index))
    assert "--queries: 2 of 3 hold words that the encoder does not know: 🐶, собака" in ended.err
    assert "--queries: 1 hold no word that the encoder knows" in ended.err and "nothing to tune" in ended.err
    (tmp_path / "q.txt").write_text("狗\na dog\n", encoding="utf-8")
    assert "does not know" not in run_here("tune", "--queries", str(tmp_path / "q.txt"), "-i", str(index)).err
