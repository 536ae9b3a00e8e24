"""The text tower: padding, and texts longer than it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brivl_search.encoders.brivl.encoder import BriVLEncoder


def test_text_vector_does_not_depend_on_padding(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint, precision="fp32")
    alone = encoder.encode_texts(["a red dog"])
    beside = encoder.encode_texts(["a red dog", "the green circle on the blue square with a red cross"])
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)
    assert abs(float(beside[0] @ beside[1])) < 0.9999


def test_long_texts_are_cut_and_counted(tiny_checkpoint: Path) -> None:
    encoder = BriVLEncoder(tiny_checkpoint)
    long = "red " * 40
    assert encoder.cut_tokens(["red dog", long]) == [0, 40 + 2 - 16]
    vectors = encoder.encode_texts([long, long + "green"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
