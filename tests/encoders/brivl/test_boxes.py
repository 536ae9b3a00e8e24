"""Files of boxes: how a picture finds its line, what a bad line says, and batches of lists of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.boxes import BoxFile, box_batch, grid_shares
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.brivl.regions import grid_boxes
from brivl_search.errors import CorpusError
from tests.support.tiny import write_boxes


def test_lists_are_cut_padded_and_end_with_the_whole_picture() -> None:
    many = np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4)
    boxes, mask = box_batch([many, many[:1], many[:0], None], [2, 1], 6)
    assert boxes.shape == (4, 7, 4) and mask.sum(1).tolist() == [7, 2, 1, 5]
    np.testing.assert_array_equal(boxes[0, :6], many[:6])
    for i, last in enumerate(mask.sum(1) - 1):
        assert boxes[i, last].tolist() == [0, 0, 1, 1] and not boxes[i, last + 1 :].any()
    np.testing.assert_array_equal(boxes[3, :5], grid_shares([2, 1]))
    np.testing.assert_allclose(grid_shares([6, 1]) * 12, grid_boxes([6, 1], 12, 12).numpy(), atol=1e-5)


def test_a_vector_does_not_depend_on_the_lists_beside_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lists = {"a": [[0, 0, 40, 40]], "b": [[0, 0, 40, 40]] + [[5, i, 60, 64] for i in range(9)]}
    write_boxes(tmp_path / "x.jsonl", *({"image_id": f"{n}.jpg", "bbox": b} for n, b in lists.items()))
    encoder = load_encoder(f"{tiny_checkpoint}+boxes={tmp_path}/x.jsonl", device="cpu", precision="fp32")
    assert isinstance(encoder, BriVLEncoder)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    origins = [Origin(str(tmp_path / f"{n}.jpg"), 64, 64) for n in "ab"]
    both = encoder.encode_pictures(pixels, origins)
    np.testing.assert_allclose(both[0], encoder.encode_pictures(pixels[:1], origins[:1])[0], atol=1e-5)
    swapped = encoder.encode_pictures(pixels[:1], origins[1:])
    assert np.abs(swapped - both[:1]).max() > 1e-4  # boxes matter
    plain = load_encoder(str(tiny_checkpoint), device="cpu", precision="fp32")
    np.testing.assert_allclose(encoder.encode_images(pixels), plain.encode_images(pixels), atol=1e-5)  # the grid
    assert encoder.fingerprint != plain.fingerprint


def test_pictures_are_found_by_path_then_by_a_name_that_is_unique(tmp_path: Path) -> None:
    file = write_boxes(
        tmp_path / "x.jsonl",
        {"image_id": "a/one.jpg", "bbox": [[0, 0, 5, 10], [10, 20, 30, 50]]},
        {"image_id": "b/one.jpg", "bbox": [[1, 1, 5, 5]]},
        {"image": "../data/imgs/two.jpg", "bbox": [[-3, 0, 400, 10]], "sentences": []},
        {"image_id": "three.jpg", "sentences": [["easy", "no boxes here"]]},
    )
    source = BoxFile(file)
    origins = [Origin(str(tmp_path / p), 100, 50) for p in ("a/one.jpg", "c/one.jpg", "two.jpg", "three.jpg", "x.jpg")]
    found = source.find(np.zeros((5, 8, 8, 3), np.uint8), origins)
    np.testing.assert_allclose(found[0], [[0, 0, 0.05, 0.2], [0.1, 0.4, 0.3, 1]])
    np.testing.assert_allclose(found[2], [[0, 0, 1, 0.2]])  # kept within the picture
    assert found[1] is found[3] is found[4] is None and source.without == 3
    member = Origin(f"{tmp_path}/photos.tar::two.jpg", 100, 50)
    np.testing.assert_array_equal(source.find(np.zeros((1, 8, 8, 3), np.uint8), [member])[0], found[2])
    assert source.find(np.zeros((2, 8, 8, 3), np.uint8), None) == [None, None] and source.without == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"bbox": []}', "line 2: no image_id"),
        ('{"image_id": "a.jpg", "bbox": [[1, 2, 3]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": [[9, 2, 3, 4]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": [[1, 2, 3, NaN]]}', "line 2: bbox must be a list of"),
        ('{"image_id": "a.jpg", "bbox": "all"}', "line 2: bbox must be a list of"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"image_id": "b.jpg", "bbox": []}\n' + line + "\n")
    with pytest.raises(CorpusError, match=words):
        BoxFile(tmp_path / "x.jsonl").find(np.zeros((1, 8, 8, 3), np.uint8), [Origin(str(tmp_path / "a.jpg"), 9, 9)])
