"""Queries of either kind end as the right records, in order; what is no query is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import UsageError
from brivl_search.index import IndexReader
from brivl_search.search import live
from brivl_search.search.engine import Engine, SearchOptions
from brivl_search.search.queries import compose
from tests.support.pictures import captions, write_corpus
from tests.support.searching import build, names
from tests.support.stub import StubEncoder


@pytest.mark.parametrize(("text", "expected"), [("a red ring", "red-ring"), ("一个蓝色的十字", "blue-cross")])
def test_text_to_image(index: Path, text: str, expected: str) -> None:
    hits = Engine(index).by_text(text, SearchOptions(5))
    assert names(hits)[0] == f"{expected}.png"
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and 0.99 < scores[0] <= 1.001
    assert all(hit.kind == "image" and hit.text is None for hit in hits)
    row = hits[0].to_dict()
    assert row == {"rank": 1, "score": round(scores[0], 6), "path": hits[0].path, "width": 96, "height": 96}


def test_image_to_text(index: Path, shapes: Path) -> None:
    hits = Engine(index).by_image(shapes / "purple-triangle.png", SearchOptions(4))
    every = captions("purple", "triangle")
    assert {hit.text for hit in hits} == {*every["zh"], *every["en"]}
    assert {hit.kind for hit in hits} == {"text"} and set(names(hits)) == {"purple-triangle.png"}
    assert set(hits[0].to_dict()) == {"rank", "score", "text", "field", "image"}
    assert {hit.to_dict()["field"] for hit in hits} == {"zh", "en"}


def test_image_to_image_and_text_to_text(index: Path, shapes: Path) -> None:
    hits = Engine(index).by_image(shapes / "black-ring.png", SearchOptions(3), target="image")
    assert names(hits)[0] == "black-ring.png" and hits[0].score == pytest.approx(1, abs=1e-3)
    texts = Engine(index).by_text("a green cross", SearchOptions(4), target="text")
    assert {hit.text for hit in texts} == {text for group in captions("green", "cross").values() for text in group}


def test_image_to_image_where_there_are_no_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 5, with_captions=False)
    engine = Engine(build(tmp_path / "photos", tmp_path / "index", encoder))
    assert engine.by_image(paths[3], SearchOptions(1))[0].path == str(paths[3])
    with pytest.raises(UsageError, match=r"holds no captions"):
        engine.by_text("x", SearchOptions(), target="text")


def test_more_hits_than_rows(index: Path) -> None:
    hits = Engine(index).by_text("a red ring", SearchOptions(1000))
    assert len(hits) == 30 and len({hit.path for hit in hits}) == 30
    assert len(Engine(index).by_text("a red ring", SearchOptions(1000), target="text")) == 120


def test_removed_rows_are_never_hits(tmp_path: Path, encoder: StubEncoder) -> None:
    paths = write_corpus(tmp_path / "photos", 30)
    index = build(tmp_path / "photos", tmp_path / "index", encoder)
    for path in paths[:10]:
        path.unlink()
    build(tmp_path / "photos", index, encoder)
    engine = Engine(index)
    assert {hit.path for hit in engine.by_text("a red circle", SearchOptions(99))} == set(map(str, paths[10:]))
    assert len(engine.by_text("a red circle", SearchOptions(999), target="text")) == 80


@pytest.mark.parametrize("text", ["", "  \n\t", "　"])
def test_empty_query(index: Path, text: str) -> None:
    with pytest.raises(UsageError, match="query is empty"):
        Engine(index).by_text(text, SearchOptions())


def test_query_of_bytes_that_are_not_utf8(index: Path) -> None:
    with pytest.raises(UsageError, match="the query is not UTF-8 text, it seems to be Latin-1"):
        Engine(index).by_text(os.fsdecode(b"caf\xe9"), SearchOptions(3))


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_picture_that_is_none(index: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "query.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"`image` .*query\.jpg: "):
        Engine(index).by_image(path, SearchOptions())


def test_with_the_real_encoder(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brivl_search.encoders import load_encoder

    monkeypatch.setattr(live, "load_encoder", load_encoder)
    paths = write_corpus(tmp_path / "photos", 8)
    encoder = load_encoder(str(tiny_checkpoint), device="cpu")
    index = build(tmp_path / "photos", tmp_path / "index", encoder)
    engine = Engine(index, device="cpu")
    hits = engine.by_image(paths[5], SearchOptions(8), target="image")
    assert hits[0].path == str(paths[5]) and hits[0].score == pytest.approx(1, abs=2e-3)
    hits = engine.by_text("一只狗 a dog", SearchOptions(8))
    expected = dict(zip(map(str, paths), encoder_scores(engine, paths, "一只狗 a dog"), strict=True))
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.path], abs=2e-3)
    assert engine.cut_tokens(compose("a dog")) == 0 and engine.cut_tokens(compose("a dog " * 50)) > 80
    assert "image_tower" not in vars(Engine(index).encoder)
    assert np.linalg.norm(next(iter(IndexReader.open(index).vectors("text")))[0].astype(np.float32), axis=1) == (
        pytest.approx(1, abs=2e-3)
    )


def encoder_scores(engine: Engine, paths: list[Path], text: str) -> np.ndarray:
    from brivl_search.corpus.images import load_pixels

    load: Callable[[str], np.ndarray] = lambda path: load_pixels(path, engine.encoder.pixels)  # noqa: E731
    pixels = np.stack([load(str(path)) for path in paths])
    return engine.encoder.encode_images(pixels) @ engine.encoder.encode_texts([text])[0]
