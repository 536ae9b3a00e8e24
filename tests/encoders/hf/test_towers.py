"""One tower is loaded without the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.errors import EncoderError
from tests.support.tiny_hf import (
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    load,
)


def test_one_tower_is_read_and_the_other_not(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoints["chinese_clip"], tmp_path / "halved")
    tensors = load_file(folder / "model.safetensors")
    whole = load(folder).encode_texts(TEXTS)
    texts_only = {name: value for name, value in tensors.items() if not name.startswith("vision_model")}
    save_file(texts_only, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = load(folder)
    assert np.array_equal(encoder.encode_texts(TEXTS), whole)
    assert "image_tower" not in encoder.__dict__
    assert not hasattr(encoder.text_tower, "vision_model")
    with pytest.raises(EncoderError, match=r"lacks \d+ tensors of its image tower, such as vision_model"):
        encoder.warm_up()
