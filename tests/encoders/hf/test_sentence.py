"""Models of sentence-transformers by name, against sentence-transformers itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brivl_search.corpus.images import PixelSpec, load_pixels
from brivl_search.encoders import load_encoder
from brivl_search.encoders.hf.sentence import SentenceEncoder
from brivl_search.errors import DependencyError, EncoderError, install_hint
from tests.support.pictures import draw, encoded
from tests.support.tiny_hf import edit_json, make_hf

TEXTS = ["a red dog on grass", "草地上的狗"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    folder = tmp_path_factory.mktemp("st")
    edit_json(make_hf(folder / "clip", "clip") / "tokenizer_config.json", model_max_length=16)
    whole = SentenceTransformer(modules=[Transformer(str(folder / "clip"))], device="cpu")
    whole.save_pretrained(str(folder / "model"))
    return folder / "model"


def load(folder: Path, dim: str = "") -> SentenceEncoder:
    encoder = load_encoder(f"hf:{folder}{dim}", device="cpu", precision="fp32")
    assert isinstance(encoder, SentenceEncoder)
    return encoder


def test_equals_sentence_transformers(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder, reference = load(model), SentenceTransformer(str(model), device="cpu")
    assert (encoder.dim, encoder.pixels) == (24, PixelSpec(32, "crop", "bicubic"))
    assert "model" not in encoder.__dict__  # its configs say enough
    texts = encoder.encode_texts(TEXTS)
    assert (texts * reference.encode(TEXTS, normalize_embeddings=True)).sum(1) == pytest.approx(1, abs=1e-4)
    assert texts[0] @ texts[1] < 0.9
    picture = draw("red", "circle", (90, 61))
    pixels = load_pixels(encoded(picture, "PNG"), encoder.pixels)
    wanted = reference.encode([picture], normalize_embeddings=True)
    assert (encoder.encode_images(pixels[None]) @ wanted.T).item() > 0.999
    assert encoder.encode_texts([]).shape == (0, 24)
    assert encoder.cut_tokens(["dog " * 30, "dog"]) == [16, 0]


def test_a_text_that_names_a_picture_stays_a_text(model: Path, tmp_path: Path) -> None:
    """sentence-transformers would open the file, or fetch the address, and embed the picture."""
    picture = tmp_path / "dog.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    encoder = load(model)
    as_image = encoder.encode_images(load_pixels(str(picture), encoder.pixels)[None])
    assert (encoder.encode_texts([str(picture)]) @ as_image.T).item() < 0.9
    assert np.isfinite(encoder.encode_texts(["http://127.0.0.1:9/dog.png"])).all()


def test_truncation_and_fingerprint(model: Path) -> None:
    with pytest.raises(EncoderError, match="Matryoshka"):
        load(model, "?dim=8")
    edit_json(model / "config.json", matryoshka_dimensions=[8, 24])
    try:
        whole, short = load(model), load(model, "?dim=8")
        first = whole.encode_texts(TEXTS)[:, :8]
        assert np.allclose(short.encode_texts(TEXTS), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
        assert short.fingerprint != whole.fingerprint
    finally:
        edit_json(model / "config.json", matryoshka_dimensions=None)


def test_what_is_missing_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DependencyError, match=re.escape(install_hint("sentence"))):
        load(model).encode_texts(TEXTS)


def test_a_model_of_texts_alone(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    SentenceTransformer(modules=[BoW(["red", "dog"])], device="cpu").save_pretrained(str(tmp_path / "bow"))
    with pytest.raises(EncoderError, match="embeds text, and no images"):
        load(tmp_path / "bow").warm_up()
