"""Vectors cut to their first dimensions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from brivl_search.encoders import load_encoder
from brivl_search.encoders.known import known_matryoshka
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny_hf import (
    TEXTS,
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    edit_json,
    load,
)


def test_truncation_is_for_matryoshka_models(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not say that it is a Matryoshka model"):
        load(checkpoints["clip"], truncate_dim=12)
    with pytest.raises(UsageError, match="`truncate_dim` 0"):
        load(checkpoints["clip"], truncate_dim=0)
    with pytest.raises(EncoderError, match="only Matryoshka models by hf:"):
        load_encoder("brivl-mini", truncate_dim=64)
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "nested")
    edit_json(folder / "config.json", matryoshka_dimensions=[8, 16, 24])
    whole, short = load(folder), load(folder, truncate_dim=12)
    assert (whole.dim, short.dim) == (24, 12) and whole.fingerprint != short.fingerprint
    assert short.name == f"hf:{folder}?dim=12" and load_encoder(short.name).fingerprint == short.fingerprint
    first = whole.encode_texts(TEXTS)[:, :12]
    assert np.allclose(short.encode_texts(TEXTS), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    for wrong in (4, 25):
        with pytest.raises(EncoderError, match="give 8 to 24"):
            load(folder, truncate_dim=wrong)
    assert known_matryoshka("hf:jinaai/jina-clip-v2@main?dim=128") == (64, 1024)
