"""What a model's config files say: defaults, preprocessing, text length, and what is wrong with a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brivl_search.corpus.images import PixelSpec
from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.family import FAMILIES, normalisation, pixel_spec
from brivl_search.errors import BrivlSearchError, EncoderError, UsageError
from tests.support.tiny_hf import (
    checkpoints_fixture,  # noqa: F401 - the fixture `checkpoints`
    edit_json,
    load,
)


def test_defaults_are_transformers_own() -> None:
    """config.json leaves out what is at its default, so we must know the defaults."""
    import transformers

    for kind, family in FAMILIES.items():
        config = getattr(transformers, family.model_class).config_class()
        assert config.model_type == {"fgclip2": "siglip2"}.get(kind, kind)  # whose towers it has
        assert config.text_config.max_position_embeddings == family.positions
        dim = config.text_config.projection_size if "projection_size" in family.dim_key else config.projection_dim
        assert dim == family.dim


def test_processors_that_no_square_can_stand_for() -> None:
    clip = {**FAMILIES["clip"].pictures}
    assert pixel_spec({**clip, "size": 256, "crop_size": 224}) == PixelSpec(224, "crop", "bicubic", short_side=256)
    for change, what in (
        ({"do_resize": False}, "do_resize"),
        ({"resample": 0}, "resample is 0"),
        ({"do_center_crop": False}, "without a crop"),
        ({"size": {"height": 224, "width": 192}}, "not a square"),
        ({"size": 200}, "short_side"),
    ):
        with pytest.raises(ValueError, match=what):
            pixel_spec({**clip, **change})
    mean, std = normalisation({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [-2, 2])
    mean, std = normalisation({"do_normalize": False})
    assert np.allclose((np.array([0, 255]) - mean[0]) / std[0], [0, 1])


def test_what_is_wrong_with_a_folder_is_said(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def broken(name: str, change: Any) -> str:
        folder = shutil.copytree(checkpoints["siglip"], tmp_path / name)
        change(folder)
        with pytest.raises(BrivlSearchError) as caught:
            load(folder).encode_texts(["dog"])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "known are clip, chinese_clip" in broken("bert", lambda f: edit_json(f / "config.json", model_type="bert"))
    assert "has no preprocessor_config.json" in broken("bare", lambda f: (f / "preprocessor_config.json").unlink())
    assert "has no weights" in broken("empty", lambda f: (f / "model.safetensors").unlink())
    assert "takes 32 x 32 pixels, and its preprocessing makes 48 x 48" in broken(
        "sizes", lambda f: edit_json(f / "preprocessor_config.json", size={"height": 48, "width": 48})
    )
    assert "cannot be read" in broken("torn", lambda f: (f / "config.json").write_text("{"))
    assert "cannot be loaded as SiglipModel" in broken(
        "cut", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:2000])
    )
    assert "tokenizer" in broken(
        "words", lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")]
    )
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EncoderError, match="has no config"):
        load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no such folder, and it is not of the form ORG/NAME"):
        load_encoder("hf:/not/there/at all")
