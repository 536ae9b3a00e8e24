"""Recall of an index and of a dataset folder: the same figures, a slow reference's, and how deep an index is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import load_pixels
from brivl_search.errors import CorpusError, EncoderError, UsageError
from brivl_search.evaluation import evaluate_index, parse_ks
from brivl_search.evaluation import index as evaluation_index
from brivl_search.index import Tuning
from brivl_search.metrics import DEFINITION, Recall
from tests.support.evaluating import (
    KS,
    build,
    over_dataset,
    photos_fixture,  # noqa: F401 - the fixture `photos`
    some,
)
from tests.support.pictures import draw, jpeg, write_corpus, write_lines
from tests.support.stub import StubEncoder


def assert_same(through: Recall, exact: Recall) -> None:
    """An exact index answers exactly, as deep as its lists go."""
    assert through.recall == exact.recall and through.median_rank == exact.median_rank
    assert (through.queries, through.candidates) == (exact.queries, exact.candidates)
    assert exact.mrr - 0.01 <= through.mrr <= exact.mrr
    assert exact.mean_average_precision - 0.01 <= through.mean_average_precision <= exact.mean_average_precision + 1e-12


def test_ks() -> None:
    assert parse_ks("1,5,10") == (1, 5, 10)
    assert parse_ks(" 10, 1,10 ") == (1, 10)
    for bad in ("", "0", "1,0", "-1", "a", "1.5", ","):
        with pytest.raises(UsageError, match="`recall_at`"):
            parse_ks(bad)


def test_index_and_dataset_give_the_same_figures(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    through = evaluate_index(build(photos, tmp_path / "index", encoder), KS)
    direct = over_dataset(photos, encoder)
    assert set(through.fields) == set(direct.fields) == {"zh", "en"}
    for a, b in ((through.text_to_image, direct.text_to_image), (through.image_to_text, direct.image_to_text)):
        one, other, index = some(a["exact"]), some(b["exact"]), some(a["through_index"])
        assert b["through_index"] is None
        assert (one.queries, one.candidates) == (other.queries, other.candidates)
        for k in KS:  # float16 rows may turn a close pair around
            assert one.recall[k] == pytest.approx(other.recall[k], abs=2 * 100 / one.queries)
        assert_same(index, one)
    texts = some(through.text_to_image["exact"])
    assert (texts.queries, texts.candidates) == (120, 30)
    assert 5 < texts.recall[1] < 100  # a test of figures wants figures that are neither 0 nor 100
    assert texts.recall[1] <= texts.recall[5] <= texts.recall[10]


def test_figures_of_a_slow_reference(photos: Path, encoder: StubEncoder) -> None:
    data = load_dataset(photos, ("en",))
    texts, owners = data.pairs()
    images = encoder.encode_images(np.stack([load_pixels(path, encoder.pixels) for path in data.images]))
    scores = encoder.encode_texts(texts) @ images.T
    result = over_dataset(photos, encoder, ("en",))
    for k in KS:
        found = [owner in np.argsort(-row, kind="stable")[:k] for row, owner in zip(scores, owners, strict=True)]
        assert some(result.text_to_image["exact"]).recall[k] == pytest.approx(100 * np.mean(found))
        mine = [
            any(owners[j] == i for j in np.argsort(-column, kind="stable")[:k]) for i, column in enumerate(scores.T)
        ]
        assert some(result.image_to_text["exact"]).recall[k] == pytest.approx(100 * np.mean(mine))


@pytest.mark.parametrize("field", ["zh", "en"])
def test_one_field_only(photos: Path, tmp_path: Path, encoder: StubEncoder, field: str) -> None:
    through = evaluate_index(build(photos, tmp_path / "index", encoder), KS, [field])
    direct = over_dataset(photos, encoder, (field,))
    for a, b in ((through.text_to_image, direct.text_to_image), (through.image_to_text, direct.image_to_text)):
        one, other, index = some(a["exact"]), some(b["exact"]), some(a["through_index"])
        assert (one.queries, one.candidates) == (other.queries, other.candidates)
        assert one.recall[10] == pytest.approx(other.recall[10], abs=2 * 100 / one.queries)
        assert_same(index, one)  # the other field's rows do not stand in the way of the filtered search
    assert some(through.image_to_text["exact"]).candidates == 60


def test_ivfpq_is_close_to_exact(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 300, size=(32, 32))
    reader = build(tmp_path / "photos", tmp_path / "index", encoder, index_type="ivfpq")
    assert reader.info.image.kind == reader.info.text.kind == "ivfpq"
    for fields in (None, ["zh"]):
        result = evaluate_index(reader, KS, fields)
        for direction in (result.text_to_image, result.image_to_text):
            exact, through = some(direction["exact"]), some(direction["through_index"])
            assert (exact.queries, exact.candidates) == (through.queries, through.candidates)
            assert through.recall[10] >= 0.95 * exact.recall[10]


def test_after_removals(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    folder = tmp_path / "photos"
    paths = write_corpus(folder, 12)
    build(folder, tmp_path / "index", encoder).close()
    for path in paths[::3]:
        path.unlink()
    result = evaluate_index(build(folder, tmp_path / "index", encoder), KS)
    exact = some(result.text_to_image["exact"])
    assert (exact.queries, exact.candidates) == (32, 8)
    assert result.text_to_image["through_index"] == exact  # eight candidates: the lists hold all


def test_images_without_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    """In an index they are candidates that no query looks for; a dataset does not have them."""
    folder = tmp_path / "photos"
    write_corpus(folder, 6)
    for n in range(3):
        draw("red", "ring", seed=50 + n).save(folder / f"extra{n}.png")
    result = evaluate_index(build(folder, tmp_path / "index", encoder), KS)
    texts, pictures = some(result.text_to_image["exact"]), some(result.image_to_text["exact"])
    assert (texts.queries, texts.candidates, pictures.queries, pictures.candidates) == (24, 9, 6, 24)
    assert result.notes == ["3 images have no caption: candidates, not queries"]
    assert some(over_dataset(folder, encoder).text_to_image["exact"]).candidates == 6


def test_k_beyond_the_rows(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 3)
    result = evaluate_index(build(tmp_path / "photos", tmp_path / "index", encoder), (1, 500))
    for direction in (result.text_to_image, result.image_to_text):
        assert some(direction["exact"]).recall[500] == some(direction["through_index"]).recall[500] == 100.0


def test_what_json_says(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    out = evaluate_index(build(photos, tmp_path / "index", encoder), KS).to_dict()
    assert out["definition"] == DEFINITION and out["encoder"] == "stub" and out["source"] == str(tmp_path / "index")
    assert out["text_to_image"]["queries"] == 120 and out["image_to_text"]["candidates"] == 120
    figures = {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "MRR", "mAP", "mean_recall"}
    assert set(out["text_to_image"]["exact"]) == figures
    assert out["recall"] == "any" and out["confidence"] is None
    assert set(out["both_directions"]["exact"]) == {"mean_recall", "recall_sum"}
    latency = out["image_to_text"]["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] and latency["queries"] == 30 and "encoder excluded" in latency["what"]
    direct = over_dataset(photos, encoder).to_dict()
    assert direct["text_to_image"]["through_index"] is None and direct["text_to_image"]["latency_ms"] is None
    assert direct["both_directions"]["through_index"] is None
    assert direct["text_to_image"]["encoder_ms"]["p50"] > 0 and direct["image_to_text"]["encoder_ms"]["p50"] > 0
    json.dumps([out, direct])


def test_index_without_captions(tmp_path: Path, encoder: StubEncoder) -> None:
    write_corpus(tmp_path / "photos", 3, with_captions=False)
    with pytest.raises(UsageError, match="holds no captions to evaluate with"):
        evaluate_index(build(tmp_path / "photos", tmp_path / "index", encoder), KS)


def test_unknown_field(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    reader = build(photos, tmp_path / "index", encoder)
    with pytest.raises(UsageError, match=r"`captions` fr: the index holds captions of (zh, en|en, zh)$"):
        evaluate_index(reader, KS, ["zh", "fr"])
    with pytest.raises(UsageError, match="'fr'"):
        over_dataset(photos, encoder, ("fr",))


def test_dataset_with_a_bad_image_or_line(tmp_path: Path, encoder: StubEncoder) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg()[:200])
    write_lines(tmp_path / "captions.jsonl", [{"image": "a.jpg", "en": "x"}, {"image": "b.jpg", "en": "y"}])
    with pytest.raises(CorpusError, match=r"b\.jpg: (corrupt|truncated)"):
        over_dataset(tmp_path, encoder)
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(CorpusError, match=r"captions\.jsonl:3: not JSON"):
        over_dataset(tmp_path, encoder)


def test_real_encoder_index_equals_dataset(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    from brivl_search.encoders import load_encoder

    encoder = load_encoder(str(tiny_checkpoint), device="cpu")
    through = evaluate_index(build(photos, tmp_path / "index", encoder), (1, 5, 10, 30))
    direct = over_dataset(photos, encoder)
    for a, b in ((through.text_to_image, direct.text_to_image), (through.image_to_text, direct.image_to_text)):
        one, other = some(a["exact"]), some(b["exact"])
        assert (one.queries, one.candidates) == (other.queries, other.candidates)
        for k in KS:
            # random towers put everything close together: rounding may move a few
            assert one.recall[k] == pytest.approx(other.recall[k], abs=3 * 100 / one.queries)
        assert_same(some(a["through_index"]), one)


def test_vectors_that_are_no_numbers(photos: Path) -> None:
    class Broken(StubEncoder):
        def encode_texts(self, texts: Any) -> np.ndarray:
            return np.full((len(texts), self.dim), np.nan, np.float32)

    with pytest.raises(EncoderError, match="stub gives vectors that are not finite"):
        over_dataset(photos, Broken())


def test_recall_through_the_index_is_that_of_a_query_for_k(tmp_path: Path, encoder: StubEncoder) -> None:
    """Deeper lists are re-ranked deeper; the first k must not profit from that."""
    write_corpus(tmp_path / "photos", 300, size=(32, 32))
    reader = build(tmp_path / "photos", tmp_path / "index", encoder, index_type="ivfpq")
    result = evaluate_index(reader, (1, 3))
    assert result.pairs is not None
    way = result.pairs.direction("text_to_image")
    found = reader.search("image", way.queries, 3)
    lists = result.searched["text_to_image"]["through_index"].lists
    assert lists is not None and lists.shape == (len(way.queries), evaluation_index.LIST_DEPTH)
    for row, shards, rows in zip(lists, found.shards, found.rows, strict=True):
        paths = [reader.record("image", int(s), int(r))["path"] for s, r in zip(shards, rows, strict=True)]
        assert [result.pairs.images[n] for n in row[:3]] == paths
        assert len(set(row.tolist())) == len(row)


@pytest.mark.parametrize(("rerank", "searches"), [(40, 2), (400, 1)])
def test_one_search_where_a_short_query_re_ranks_as_much(
    tmp_path: Path, encoder: StubEncoder, monkeypatch: pytest.MonkeyPatch, rerank: int, searches: int
) -> None:
    write_corpus(tmp_path / "photos", 2000, size=(16, 16), with_captions=False)
    reader = build(tmp_path / "photos", tmp_path / "index", encoder, index_type="ivfpq")
    info = reader.info.image
    tuning = Tuning(nprobe=info.nlist, rerank=rerank)  # all lists: a query for 10 and one for 100 see the same rows
    reader.info = replace(reader.info, image=replace(info, tuning=tuning))
    side = evaluation_index._Side(reader, "image")
    asked: list[int] = []
    monkeypatch.setattr(side, "search", lambda q, k, search=side.search: asked.append(k) or search(q, k))
    queries = np.ascontiguousarray(side.vectors[:50], dtype=np.float32)
    lists = evaluation_index._lists(side, queries, 10)
    assert len(asked) == searches and lists.shape == (50, 100)
    found = reader.search("image", queries, 10)
    assert (lists[:, :10] == found.rows).all()  # one shard: its rows are the numbers
