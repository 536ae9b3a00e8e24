"""Prediction files in the layout that Chinese-CLIP's public scripts read, so that they can score us.

    DIR/test_texts.jsonl           {"text_id": 0, "text": "...", "image_ids": [7]}      who belongs to whom
    DIR/test_texts.tr.jsonl        {"image_id": 7, "text_ids": [0, 1]}                  the same, by image
    DIR/test_predictions.jsonl     {"text_id": 0, "image_ids": [10 ids, best first]}
    DIR/test_tr_predictions.jsonl  {"image_id": 7, "text_ids": [10 ids, best first]}
    DIR/test_images.tsv            image_id TAB path                                    ours, for people

    python cn_clip/eval/evaluation.py    DIR/test_texts.jsonl    DIR/test_predictions.jsonl    output.json
    python cn_clip/eval/evaluation_tr.py DIR/test_texts.tr.jsonl DIR/test_tr_predictions.jsonl output.json

The scripts take whole numbers as ids and exactly ten different predictions. The dataset's own ids are kept where all
are different whole numbers (an image's is the name of its file); else they are numbered in the order of reading.
Predictions are those of exact search: the scripts score the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from brivl_search.display import printable
from brivl_search.errors import UsageError
from brivl_search.evaluation.result import Evaluation
from brivl_search.metrics import top_lists

PREDICTIONS = 10
FILES = ("texts.jsonl", "texts.tr.jsonl", "predictions.jsonl", "tr_predictions.jsonl", "images.tsv")


def write_predictions(folder: Path, evaluation: Evaluation, split: str = "test") -> list[Path]:
    """Writes the five files; makes the folder if needed, replaces files of the same names.

    Args:
        folder: where to.
        evaluation: what was measured.
        split: first word of the file names.

    Returns:
        The files, in the order above.

    Raises:
        UsageError: fewer than ten images or texts.
        OSError: the folder cannot be written.
    """
    assert evaluation.pairs is not None
    pairs = evaluation.pairs
    for what, count in (("images", len(pairs.images)), ("captions", len(pairs.texts))):
        if count < PREDICTIONS:
            raise UsageError(f"`predictions`: Chinese-CLIP's scripts want the best {PREDICTIONS} of {count} {what}")
    folder.mkdir(parents=True, exist_ok=True)
    texts, texts_tr, to_images, to_texts, paths = (folder / f"{split}_{rest}" for rest in FILES)
    ids, names = image_ids(pairs.images), text_ids(pairs.text_ids, len(pairs.texts))
    owners = ([ids[image] for image in partners] for partners in pairs.partners)
    rows = zip(names, pairs.texts, owners, strict=True)
    _write(texts, ({"text_id": name, "text": text, "image_ids": mine} for name, text, mine in rows))
    way = pairs.direction("text_to_image")
    found, _ = top_lists(way.queries, way.candidates, PREDICTIONS)
    best = zip(names, found.tolist(), strict=True)
    _write(to_images, ({"text_id": name, "image_ids": [ids[n] for n in row]} for name, row in best))
    way = pairs.direction("image_to_text")
    images = [ids[image] for image in way.query_numbers.tolist()]
    truth = zip(images, way.truth, strict=True)
    _write(texts_tr, ({"image_id": image, "text_ids": [names[n] for n in row]} for image, row in truth))
    found, _ = top_lists(way.queries, way.candidates, PREDICTIONS)
    best = zip(images, found.tolist(), strict=True)
    _write(to_texts, ({"image_id": image, "text_ids": [names[n] for n in row]} for image, row in best))
    with open(paths, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{number}\t{printable(path)}\n" for number, path in zip(ids, pairs.images, strict=True))
    return [texts, texts_tr, to_images, to_texts, paths]


def image_ids(paths: Sequence[str]) -> list[int]:
    """File stems (of CONTAINER::MEMBER the member's) as numbers where all are and differ, else 0, 1, 2, ..."""
    return _numbers([PurePath(path.rpartition("::")[2]).stem for path in paths], len(paths))


def text_ids(names: Sequence[str], count: int) -> list[int]:
    """The dataset's ids as numbers where all are and differ, else 0, 1, 2, ..."""
    return _numbers(names, count)


def _numbers(names: Sequence[str], count: int) -> list[int]:
    if len(names) == count and all(name.isascii() and name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == count:
            return numbers
    return list(range(count))


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
