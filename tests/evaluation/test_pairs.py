"""Who belongs to whom: texts of several images, images without texts, and what is drawn together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brivl_search.corpus.dataset import Dataset
from brivl_search.corpus.walk import ImageFile
from brivl_search.evaluation import EvaluationOptions, Pairs, evaluate_dataset, write_predictions
from brivl_search.evaluation.pairs import first_of_each
from brivl_search.evaluation.predictions import text_ids
from brivl_search.metrics import Bootstrap
from tests.support.pictures import write_corpus
from tests.support.stub import StubEncoder


def some_pairs(partners: list[list[int]], images: int) -> Pairs:
    vectors = np.eye(8, dtype=np.float32)
    texts = [f"text {n}" for n in range(len(partners))]
    return Pairs(texts, [f"{n}.jpg" for n in range(images)], partners, vectors[: len(partners)], vectors[:images])


def test_directions() -> None:
    pairs = some_pairs([[0], [0, 2], [3]], 4)
    to_image, to_text = pairs.direction("text_to_image"), pairs.direction("image_to_text")
    assert list(to_image.truth) == [[0], [0, 2], [3]] and len(to_image.candidates) == 4
    assert list(to_text.truth) == [[0, 1], [1], [2]] and to_text.query_numbers.tolist() == [0, 2, 3]  # 1 has no text
    assert (to_text.queries == pairs.image_vectors[[0, 2, 3]]).all()
    assert pairs.query_label(to_text, 2) == "3.jpg" and pairs.candidate_label(to_text, 2) == "text 2"


def test_images_that_share_a_text_are_drawn_together() -> None:
    pairs = some_pairs([[0], [0, 2], [3], [4, 3]], 6)
    to_image, to_text = pairs.direction("text_to_image"), pairs.direction("image_to_text")
    assert to_text.query_numbers.tolist() == [0, 2, 3, 4]
    first, second = to_text.cluster[0], to_text.cluster[2]
    assert to_text.cluster.tolist() == [first, first, second, second] and {int(first), int(second)} == {0, 1}
    assert to_image.cluster.tolist() == [first, first, second, second]


def test_each_image_is_a_group_where_no_text_is_shared() -> None:
    pairs = some_pairs([[2], [0], [2], [0]], 3)
    assert pairs.direction("text_to_image").cluster.tolist() == [1, 0, 1, 0]
    assert pairs.direction("image_to_text").cluster.tolist() == [0, 1]


def test_first_of_each() -> None:
    assert first_of_each([1, 0, 1, 2, 0]) == [0, 1, 3]


def test_a_text_of_several_images_is_one_query(tmp_path: Path) -> None:
    """As in MUGE: found when any of its images is; the files for the scripts keep the dataset's ids."""
    paths = write_corpus(tmp_path, 12)
    query = "a red circle", "700"  # the first picture is a red circle
    rows: list[list[tuple[str, str]]] = [[query], [query], *([(f"text {n}", str(900 + n))] for n in range(10))]
    data = Dataset(
        str(tmp_path),
        ("captions",),
        tuple(map(str, paths)),
        tuple(tuple(text for text, _ in row) for row in rows),
        files=tuple(ImageFile(str(path), 0, 0) for path in paths),
        text_ids=tuple(tuple(name for _, name in row) for row in rows),
    )
    options = EvaluationOptions(bootstrap=Bootstrap(resamples=20))
    result = evaluate_dataset(data, StubEncoder(), (1, 12), lambda steps: None, workers=0, options=options)
    exact = result.text_to_image["exact"]
    assert exact is not None and (exact.queries, exact.candidates) == (11, 12)
    assert result.searched["text_to_image"]["exact"].ranks.first[0] == 1
    assert result.pairs is not None and list(result.pairs.partners[0]) == [0, 1]
    assert text_ids(result.pairs.text_ids, 11) == [700, *range(900, 910)]
    texts = write_predictions(tmp_path / "out", result)[0].read_text(encoding="utf-8").splitlines()
    assert texts[0] == '{"text_id": 700, "text": "a red circle", "image_ids": [0, 1]}'
