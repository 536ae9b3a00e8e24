"""Prediction files: Chinese-CLIP's scripts would take them, and would compute our figures from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.dataset import load_dataset
from brivl_search.errors import UsageError
from brivl_search.evaluation import Evaluation, evaluate_dataset, write_predictions
from brivl_search.evaluation.predictions import image_ids
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def score(truth: Path, predicted: Path, query: str, candidate: str) -> list[float]:
    """R@1, R@5, R@10 in percent by the scripts' rules: whole numbers as ids, ten different predictions for every query
    of the truth, a hit where any of its true ids is among the first k."""
    answers = {row[query]: row[candidate] for row in lines(predicted)}
    truths = {row[query]: row[candidate] for row in lines(truth)}
    assert set(truths) <= set(answers) and len(answers) == len(lines(predicted))
    for key, row in answers.items():
        assert type(key) is int and all(type(one) is int for one in row)
        assert len(row) == len(set(row)) == 10
    return [
        100 * float(np.mean([bool(set(answers[q][:k]) & set(true)) for q, true in truths.items()])) for k in (1, 5, 10)
    ]


def evaluated(folder: Path, pictures: int, fields: str | None = None) -> Evaluation:
    write_corpus(folder, pictures)
    return evaluate_dataset(load_dataset(folder, fields), StubEncoder(), (1, 5, 10), lambda steps: None, workers=0)


def test_the_scripts_compute_our_figures(tmp_path: Path) -> None:
    result = evaluated(tmp_path / "photos", 30)
    texts, texts_tr, to_images, to_texts, images = write_predictions(tmp_path / "deep" / "out", result)
    assert [path.name for path in (texts, texts_tr, to_images, to_texts)] == [
        "test_texts.jsonl",
        "test_texts.tr.jsonl",
        "test_predictions.jsonl",
        "test_tr_predictions.jsonl",
    ]
    exact, back = result.text_to_image["exact"], result.image_to_text["exact"]
    assert exact is not None and back is not None
    found = score(texts, to_images, "text_id", "image_ids")
    assert found == pytest.approx(list(exact.recall.values())) and 0 < found[0] < found[2]
    assert score(texts_tr, to_texts, "image_id", "text_ids") == pytest.approx(list(back.recall.values()))
    assert set(lines(texts)[0]) == {"text_id", "text", "image_ids"} and len(lines(texts)) == 120

    # The tr file is the other one, by image, as their transform_ir_annotation_to_tr.py makes it.
    by_image: dict[int, list[int]] = {}
    for row in lines(texts):
        for image in row["image_ids"]:
            by_image.setdefault(image, []).append(row["text_id"])
    assert {row["image_id"]: row["text_ids"] for row in lines(texts_tr)} == by_image
    assert result.pairs is not None
    named = dict(line.split("\t") for line in images.read_text(encoding="utf-8").splitlines())
    assert [named[str(i)] for i in image_ids(result.pairs.images)] == list(result.pairs.images)


def test_ids() -> None:
    assert image_ids(["/a/1000092795.jpg", "/b/7.png"]) == [1000092795, 7]
    assert image_ids(["/a/1.jpg", "/b/1.png"]) == [0, 1]  # not different
    assert image_ids(["/a/1.jpg", "/b/x.png"]) == [0, 1]
    assert image_ids(["/a/٣.jpg", "/b/2.png"]) == [0, 1]


def test_too_few(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="best 10 of 4 images"):
        write_predictions(tmp_path / "out", evaluated(tmp_path / "photos", 4))
    assert not (tmp_path / "out").exists()
