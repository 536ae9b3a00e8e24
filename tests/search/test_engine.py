"""Queries of either kind end as the right records, in order, however the index is searched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.display import as_given
from brivl_search.encoders.calibration import Calibration
from brivl_search.errors import EncoderError, IndexIncompatibleError, IndexMissingError, UsageError
from brivl_search.index import IndexReader
from brivl_search.ingest.run import BuildOptions, build_index
from brivl_search.search import live
from brivl_search.search.engine import Engine, Hit, SearchOptions
from brivl_search.search.queries import compose
from tests.support.pictures import COLOURS, SHAPES, captions, draw, write_corpus, write_lines
from tests.support.stub import Silent, StubEncoder


def build(folder: Path, index: Path, encoder: Any, **options: Any) -> Path:
    build_index([folder], index, encoder, BuildOptions(**{"workers": 0, **options}), Silent())
    return index


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, device: str = "auto") -> StubEncoder:
        if name == "gone":
            raise EncoderError("no encoder 'gone'")
        return StubEncoder(name, "another" if name == "other" else "stub-fingerprint")

    monkeypatch.setattr(live, "load_encoder", load)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All thirty pictures, centred, so that each text's vector is one picture's, nearly."""
    folder = tmp_path_factory.mktemp("shapes")
    lines = []
    for colour in COLOURS:
        for shape in SHAPES:
            draw(colour, shape).save(folder / f"{colour}-{shape}.png")
            lines.append({"image": f"{colour}-{shape}.png", **captions(colour, shape)})
    write_lines(folder / "captions.jsonl", lines)
    return folder


@pytest.fixture(scope="module")
def index(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(shapes, tmp_path_factory.mktemp("index") / "shapes", StubEncoder())


def names(hits: list[Hit]) -> list[str]:
    return [os.path.basename(hit.path) for hit in hits]


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


def test_match_is_given_between_text_and_picture_only(index: Path, shapes: Path) -> None:
    engine, ring = Engine(index), shapes / "red-ring.png"
    assert all(hit.match is None for hit in engine.by_text("a red ring", SearchOptions(3)))
    engine.encoder.calibration = Calibration(10, -5)
    for hit in (*engine.by_text("a red ring", SearchOptions(9)), *engine.by_image(ring, SearchOptions(9))):
        assert hit.match == pytest.approx(1 / (1 + np.exp(5 - 10 * hit.score)))
        assert hit.to_dict()["match"] == round(hit.match or 0, 4)
    alike = engine.by_image(ring, SearchOptions(3), target="image")
    alike += engine.by_text("a red ring", SearchOptions(3), target="text")
    assert len(alike) == 6 and all(hit.match is None and "match" not in hit.to_dict() for hit in alike)


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
    assert len(Engine(index).by_text(os.fsdecode(b"caf\xe9"), SearchOptions(3))) == 3


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_picture_that_is_none(index: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "query.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"--image .*query\.jpg: "):
        Engine(index).by_image(path, SearchOptions())


def test_nothing_is_loaded_to_refuse(index: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError):
        Engine(tmp_path / "none")
    with pytest.raises(UsageError):
        Engine(index, encoder="gone").by_text(" ", SearchOptions())


def test_another_encoder_names_the_one_that_fits(index: Path) -> None:
    with pytest.raises(IndexIncompatibleError, match=r"is of encoder 'stub'.*'other' is another: use --encoder") as e:
        Engine(index, encoder="other").by_text("a red ring", SearchOptions())
    assert e.value.exit_code == 3


def test_same_encoder_by_another_name_fits(index: Path) -> None:
    assert Engine(index, encoder="moved").by_text("a red ring", SearchOptions(1))


def test_encoder_that_is_gone(index: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    encoder.name = "gone"
    write_corpus(tmp_path / "photos", 2)
    of_gone = build(tmp_path / "photos", tmp_path / "of-gone", encoder)
    with pytest.raises(IndexIncompatibleError, match=r"needs its encoder 'gone'.*give its new place with --encoder"):
        Engine(of_gone).by_text("x", SearchOptions())
    assert Engine(of_gone, encoder="moved").by_text("x", SearchOptions(1))  # found at its new place
    with pytest.raises(EncoderError):  # asked for by name: its own error
        Engine(index, encoder="gone").by_text("x", SearchOptions())


# -- through the index and exactly -------------------------------------------------------------------------------

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


# -- paths -------------------------------------------------------------------------------------------------------


def test_paths_as_the_folder_was_given(tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path)
    engine = Engine(build(Path("photos"), tmp_path / "index", encoder))

    def found() -> str:
        return os.path.dirname(engine.by_text("a red circle", SearchOptions(1))[0].path)

    def described() -> str:
        return os.path.dirname(
            engine.by_image(tmp_path / "photos/images/0000-red-circle.jpg", SearchOptions(1))[0].path
        )

    assert found() == described() == "photos/images"
    monkeypatch.chdir("/")  # from here that name leads nowhere
    assert found() == described() == str(tmp_path / "photos/images")


def test_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    roots = [("photos", f"{here}/photos"), ("./b/", f"{here}/b"), (".", here)]
    assert as_given(f"{here}/photos/a.jpg", roots) == "photos/a.jpg"
    assert as_given(f"{here}/b/c/a.jpg", roots) == "./b/c/a.jpg"
    assert as_given(f"{here}/photos2/a.jpg", roots[:2]) == f"{here}/photos2/a.jpg"
    assert as_given("/elsewhere/a.jpg", roots) == "/elsewhere/a.jpg"
    assert as_given(f"{here}/x.jpg", [("/", "/")]) == f"{here}/x.jpg"


# -- with real towers --------------------------------------------------------------------------------------------


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


def test_a_long_lived_engine_sees_a_new_generation(tmp_path: Path, encoder: StubEncoder) -> None:
    draw("red", "circle").save(tmp_path / "first.png")
    index = build(tmp_path, tmp_path / "index", encoder)
    engine = Engine(index)
    before = engine.reader
    assert names(engine.by_text("a red circle", SearchOptions())) == ["first.png"] and engine.reader is before
    draw("blue", "cross").save(tmp_path / "second.png")
    build(tmp_path, index, encoder)
    assert names(engine.by_text("a blue cross", SearchOptions())) == ["second.png", "first.png"]
    assert engine.reader is not before and before.count("image") == 1
    shutil.rmtree(index)  # deleted under it: the last state goes on answering
    assert names(engine.by_text("a blue cross", SearchOptions())) == ["second.png", "first.png"]
    build(tmp_path, index, StubEncoder("other", "other-fingerprint"))
    with pytest.raises(IndexIncompatibleError, match="built again with encoder 'other'"):
        engine.by_text("a blue cross", SearchOptions())


def test_an_untouched_catalog_costs_one_stat(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = (index / "catalog.lmdb").stat()
    os.utime(index / "catalog.lmdb", ns=(status.st_atime_ns, status.st_mtime_ns - 10**11))  # not changed just now
    with IndexReader.open(index) as reader:
        monkeypatch.setattr("brivl_search.index.catalog.reading", None)
        assert not reader.stale()


def test_a_shard_that_fails_under_an_open_engine_is_left_out(tmp_path: Path, encoder: StubEncoder) -> None:
    for number, (colour, shape) in enumerate([("red", "circle"), ("blue", "cross"), ("green", "ring")]):
        draw(colour, shape).save(tmp_path / f"{number}.png")
    index = build(tmp_path, tmp_path / "index", encoder, shard_rows=1)
    engine = Engine(index)
    shard = engine.reader._parts["image"][1].shard
    shard._sums = shard._sums ^ 1  # what reading a rotten page gives: bytes and checksum differ
    assert sorted(names(engine.by_text("a blue cross", SearchOptions()))) == ["0.png", "2.png"]
    assert "image-000002.lmdb is damaged" in engine.reader.damage[0]
