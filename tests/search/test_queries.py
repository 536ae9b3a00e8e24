"""How queries are written, and what vectors they become."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.encodings import NotText
from brivl_search.errors import UsageError
from brivl_search.search.queries import Query, Term, compose, image_term, read_batch, text_term
from brivl_search.search.vectors import embed
from tests.support.pictures import draw, encoded
from tests.support.stub import StubEncoder


@pytest.mark.parametrize(
    ("written", "weight", "text"),
    [
        ("雪", 1, "雪"),
        ("2:雪", 2, "雪"),
        (" .5: snow ", 0.5, "snow"),
        ("0:x", 0, "x"),
        ("1:3:10 to Yuma", 1, "3:10 to Yuma"),
        ("a:b", 1, "a:b"),
        ("-2:x", 1, "-2:x"),
    ],
)
def test_weights(written: str, weight: float, text: str) -> None:
    assert text_term(written) == Term(text, "text", weight)
    assert text_term(written, -1).weight == -weight


def test_a_picture_that_is_called_like_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert image_term("2:a.jpg") == Term("a.jpg", "image", 2)
    Path("2:a.jpg").touch()
    assert image_term("2:a.jpg") == Term("2:a.jpg", "image", 1)


def test_titles() -> None:
    query = compose("雪地里的狗", image=["/p/a.jpg"], plus=["2:红色"], minus=["人"])
    assert str(query) == "雪地里的狗 + a.jpg + 2:红色 − 人"
    assert query.single is None and compose("x").single == "text" and compose(image=["a"]).single == "image"
    assert compose(image=[b"bytes"]).terms[0].content == b"bytes"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text": " "},
        {"text": "\u200b"},
        {"minus": ["x"]},
        {"text": "0:x", "minus": ["y"]},
        {"text": "2:", "plus": ["y"]},
        {"text": "x", "k": 0},
        {"text": "\udcb9\udcb7"},
        {"text": "x", "plus": ["\udcb9\udcb7"]},
        {"text": "x", "minus": ["2:\ud83d"]},
    ],
)
def test_what_is_no_query(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        compose(**given)


@pytest.mark.parametrize("text", ["0:00 clock", "16:9 wide photo", "2:1", "3:10 to Yuma", "0:x", "2:", "1:2:雪"])
def test_a_text_alone_is_taken_as_it_stands(text: str) -> None:
    assert compose(text).terms == (Term(text),)
    assert [one for *_, one in read_batch([(1, text)])] == [compose(text)]
    assert compose(text="2:雪", plus=["人"]).terms == (Term("雪", "text", 2), Term("人"))
    assert compose(text="1:2:雪", minus=["人"]).terms[0] == Term("2:雪")
    assert compose(plus=["2:雪"]).terms == (Term("雪", "text", 2),)


def test_sums() -> None:
    encoder = StubEncoder()
    red, blue = encoder.encode_texts(["a red ring", "a blue cross"])
    encoder.texts.clear()
    picture = encoded(draw("green", "square"), "PNG")
    queries = [
        compose("a red ring"),
        compose(plus=["3:a red ring"]),
        compose("a red ring", plus=["2:a blue cross"]),
        compose("a red ring", minus=["0.5:a blue cross"]),
        compose("a red ring", image=[picture]),
        compose("a red ring", minus=["a red ring"]),
        compose(image=["/no/such.jpg"], plus=["a red ring"]),
    ]
    vectors = embed(encoder, queries)
    assert encoder.texts == ["a red ring", "a blue cross"] and encoder.images == 1  # each once
    green = embed(encoder, [compose(image=[picture])])[0]
    expected = [red, red, red + 2 * blue, red - 0.5 * blue, red + green]
    for found, sought in zip(vectors, expected, strict=False):
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        np.testing.assert_allclose(found, sought / np.linalg.norm(sought), atol=1e-6)
    assert "cancel each other out" in str(vectors[5]) and "`image` /no/such.jpg: no such file" in str(vectors[6])


def test_a_line_that_is_not_utf8_costs_itself_alone() -> None:
    lines = [(1, "a dog"), (2, NotText(None, None)), (3, "\u200b"), (4, '{"text": "\\ud83d"}')]
    (one, *_), (two, _, wrong), (four, _, half) = list(read_batch(lines))
    assert (one, two, four) == (1, 2, 4)
    assert str(wrong).startswith("line 2: not UTF-8 text") and str(half).startswith("line 4: the query is not UTF-8")


def test_batch_lines() -> None:
    text = io.StringIO(
        "\ufeff一只狗\n"
        "\n"
        '{"text": "狗", "plus": "雪", "minus": ["0.5:人"], "image": "a.jpg", "k": 3, "target": "texts"}\n'
        "{broken\n"
        '{"query": "x"}\n'
        '{"text": 3}\n'
        '{"text": "x", "k": 0}\n'
        '{"text": "x", "target": "videos"}\n'
        '{"plus": [1], "text": "x"}\n'
    )
    found = list(read_batch(enumerate(text, 1)))
    assert [number for number, *_ in found] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert found[0][1:] == ("一只狗", compose("一只狗"))
    assert found[1][2] == Query(
        (Term("狗"), Term("a.jpg", "image"), Term("雪"), Term("人", "text", -0.5)), k=3, target="text"
    )
    wrong = [str(query) for *_, query in found[2:]]
    for said, word in zip(wrong, ["JSON object", "'query'", "no string", "k is 0", "videos", "`plus`"], strict=True):
        assert word in said and said.startswith("line ")
