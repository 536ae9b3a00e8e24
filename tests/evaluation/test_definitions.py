"""Definitions of recall, intervals and comparisons; what is written of each query, and what is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.corpus.images import load_pixels
from brivl_search.evaluation import EvaluationOptions, compare, evaluate_index, write_per_query
from brivl_search.evaluation.result import timed
from brivl_search.metrics import DEFINITIONS, Bootstrap
from tests.support.evaluating import (
    KS,
    build,
    over_dataset,
    photos_fixture,  # noqa: F401 - the fixture `photos`
    some,
)
from tests.support.pictures import draw, jpeg
from tests.support.stub import StubEncoder

# -- definitions, intervals, comparisons --------------------------------------------------------------------------


def test_share_of_positives(photos: Path, encoder: StubEncoder) -> None:
    """Each image has four captions: the share found is less than the any-hit rule says; one image a caption: equal."""
    any_hit, share = over_dataset(photos, encoder), over_dataset(photos, encoder, options=EvaluationOptions("share"))
    assert share.definition == DEFINITIONS["share"] and share.to_dict()["recall"] == "share"
    assert some(share.text_to_image["exact"]).recall == some(any_hit.text_to_image["exact"]).recall
    to_text, found = some(share.image_to_text["exact"]).recall, some(any_hit.image_to_text["exact"]).recall
    assert 0 < to_text[1] <= 25 and to_text[10] < found[10]


def test_diagonal_takes_the_first_caption_of_each_image(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    direct = over_dataset(photos, encoder, ("en",), EvaluationOptions("diagonal"))
    data = load_dataset(photos, "en")
    assert direct.pairs is not None and list(direct.pairs.texts) == [group[0] for group in data.captions]
    assert direct.notes == ["the first caption of each image: 30 of 60 captions"]
    images = encoder.encode_images(np.stack([load_pixels(path, encoder.pixels) for path in data.images]))
    scores = encoder.encode_texts(direct.pairs.texts) @ images.T
    expected = [i in np.argsort(-row, kind="stable")[:5] for i, row in enumerate(scores)]
    assert some(direct.text_to_image["exact"]).recall[5] == pytest.approx(100 * np.mean(expected))
    expected = [i in np.argsort(-column, kind="stable")[:5] for i, column in enumerate(scores.T)]
    assert some(direct.image_to_text["exact"]).recall[5] == pytest.approx(100 * np.mean(expected))

    draw("red", "ring", seed=50).save(photos / "extra.png")  # without a caption: left out of an N × N comparison
    try:
        through = evaluate_index(
            build(photos, tmp_path / "index", encoder), KS, ["en"], options=EvaluationOptions("diagonal")
        )
    finally:
        (photos / "extra.png").unlink()
    for direction in (through.text_to_image, through.image_to_text):
        exact = some(direction["exact"])
        assert (exact.queries, exact.candidates) == (30, 30)
        assert direction["through_index"] == exact  # thirty candidates: the lists hold all
    assert through.notes == [
        "the index's first caption of each image: 30 of 60 captions",
        "1 images have no caption and are left out",
    ]


def test_intervals(photos: Path, encoder: StubEncoder) -> None:
    options = EvaluationOptions(bootstrap=Bootstrap(90, resamples=200))
    result = over_dataset(photos, encoder, options=options)
    for direction in (result.text_to_image, result.image_to_text):
        recall = some(direction["exact"])
        for name, value in recall.figures().items():
            low, high = recall.intervals[name]
            assert value is not None and low <= value <= high
    low, high = result.both_intervals["exact"]["mean_recall"]
    both = result.both["exact"]
    assert both is not None and low < both["mean_recall"] < high
    assert both["recall_sum"] == pytest.approx(6 * both["mean_recall"])
    assert result.both_intervals["exact"]["recall_sum"] == pytest.approx((6 * low, 6 * high))
    out = result.to_dict()
    assert out["confidence"]["level"] == 90 and len(out["text_to_image"]["exact"]["intervals"]["R@1"]) == 2
    again = over_dataset(photos, encoder, options=options)
    assert again.text_to_image == result.text_to_image  # seeded


class Blurred(StubEncoder):
    """The stub with noise on its text vectors: worse, by how much one says."""

    def __init__(self, noise: float) -> None:
        super().__init__(name=f"noise {noise:g}")
        self.noise = noise

    def encode_texts(self, texts: Any) -> np.ndarray:
        vectors = super().encode_texts(texts)
        vectors = vectors + self.noise * np.random.default_rng(len(texts)).standard_normal(vectors.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_compare(photos: Path, encoder: StubEncoder) -> None:
    first = over_dataset(photos, encoder)
    same, hardly, far = (over_dataset(photos, one) for one in (StubEncoder("same"), Blurred(0.003), Blurred(1.0)))
    none, little, much = compare(first, [same, hardly, far], Bootstrap(resamples=300))
    assert (none.encoder, none.baseline, none.level) == ("same", "stub", 95)
    for part in none.differences.values():
        for found in part.values():
            assert (found.difference, found.low, found.high, found.excludes_zero) == (0, 0, 0, False)
    worse = much.differences["text_to_image"]["R@10"]
    exact = some(far.text_to_image["exact"]).recall[10] - some(first.text_to_image["exact"]).recall[10]
    assert worse.difference == pytest.approx(exact) and exact < -10
    assert worse.low < worse.difference < worse.high < 0 and worse.excludes_zero
    assert much.differences["text_to_image"]["median_rank"].difference > 0
    assert not little.differences["text_to_image"]["R@10"].excludes_zero
    sums = much.differences["both_directions"]
    assert sums["recall_sum"].difference == pytest.approx(6 * sums["mean_recall"].difference)
    json.dumps([one.to_dict() for one in (none, little, much)])


def test_paired_intervals_are_narrower_than_those_of_two_samples(photos: Path, encoder: StubEncoder) -> None:
    options = EvaluationOptions(bootstrap=Bootstrap(resamples=500))
    first, other = over_dataset(photos, encoder, options=options), over_dataset(photos, Blurred(0.003), options=options)
    (found,) = compare(first, [other])
    paired = found.differences["text_to_image"]["R@10"]
    low, high = some(first.text_to_image["exact"]).intervals["R@10"]
    assert paired.high - paired.low < (high - low) / 2


def test_compare_wants_the_same_data(photos: Path, encoder: StubEncoder) -> None:
    with pytest.raises(ValueError, match="other data"):
        compare(over_dataset(photos, encoder), [over_dataset(photos, encoder, ("en",))])


# -- what is written, what is timed -------------------------------------------------------------------------------


def test_per_query_lines(photos: Path, tmp_path: Path, encoder: StubEncoder) -> None:
    result = evaluate_index(build(photos, tmp_path / "index", encoder), KS, ["en"])
    assert write_per_query(tmp_path / "queries.jsonl", [result]) == 2 * (60 + 30)
    rows = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, measured in (("text_to_image", result.text_to_image), ("image_to_text", result.image_to_text)):
        for search in ("exact", "through_index"):
            mine = [row for row in rows if (row["direction"], row["search"]) == (name, search)]
            best = [min(partner["rank"] for partner in row["partners"]) for row in mine]
            for k in KS:  # the figures can be computed from the file alone
                assert some(measured[search]).recall[k] == pytest.approx(100 * np.mean([rank <= k for rank in best]))
            for row in mine:
                assert len(row["top"]) == 10 and len(row["partners"]) == (1 if name == "text_to_image" else 2)
                scores = [one["score"] for one in row["top"]]
                assert scores == sorted(scores, reverse=True)
                for partner in row["partners"]:
                    if partner["rank"] <= 10:
                        assert row["top"][partner["rank"] - 1]["number"] == partner["number"]
    text = next(row for row in rows if row["direction"] == "text_to_image")
    assert text["encoder"] == "stub" and isinstance(text["query"], str)
    assert text["partners"][0]["what"].startswith(str(photos))


def test_per_query_lines_of_names_that_are_not_utf8(tmp_path: Path, encoder: StubEncoder) -> None:
    name = "caf\udce9.jpg"
    (tmp_path / name).write_bytes(jpeg())
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": name, "en": "a red circle"}))
    result = over_dataset(tmp_path, encoder)
    write_per_query(tmp_path / "queries.jsonl", [result])
    rows = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_bytes().splitlines()]
    assert rows[0]["partners"][0]["what"] == str(tmp_path / name)


def test_timed() -> None:
    calls: list[int] = []
    times = timed(calls.append, 40, "what")
    assert calls == [0, 1, 2, *range(40)] and times.queries == 40 and 0 <= times.p50 <= times.p99
    calls.clear()
    assert timed(calls.append, 10_000, "what", most=500).queries == 500
    assert timed(lambda i: __import__("time").sleep(0.01), 100, "what", seconds=0.0).queries == 5
