"""EmbeddingGemma 2 by its prompts, against sentence-transformers itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brivl_search.encoders import load_encoder
from brivl_search.encoders.base import has_sides
from brivl_search.encoders.hf.sentence import ANY_SIZE, SentenceEncoder
from brivl_search.errors import EncoderError, UsageError
from tests.support.tiny_gemma import CAPTION, SEARCH, make_gemma
from tests.support.tiny_hf import edit_json

pytest.importorskip("sentence_transformers")
pytest.importorskip("transformers.models.embedding_gemma2")
TEXTS = ["a red dog on grass", "草地上的狗", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gemma(tmp_path_factory.mktemp("gemma"))


def load(folder: Path, settings: str = "") -> SentenceEncoder:
    encoder = load_encoder(f"hf:{folder}{settings}", device="cpu", precision="fp32")
    assert isinstance(encoder, SentenceEncoder)
    return encoder


def test_texts_and_pictures_equal_sentence_transformers(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference, encoder = SentenceTransformer(str(folder), device="cpu"), load(folder)
    assert (encoder.prompts.query, encoder.prompts.document) == (SEARCH, CAPTION)
    assert encoder.dim == 24 and encoder.pixels == ANY_SIZE and has_sides(encoder)
    queries, captions = encoder.encode_queries(TEXTS), encoder.encode_texts(TEXTS)
    assert np.allclose(queries, reference.encode_query(TEXTS), atol=1e-5)
    assert np.allclose(captions, reference.encode_document(TEXTS), atol=1e-5)
    assert (queries * captions).sum(1).max() < 0.999
    noise = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3), dtype=np.uint8).repeat(64, 1).repeat(64, 2)
    images = encoder.encode_images(noise)  # several together: its processor would take them for one document
    wanted: list[Any] = [reference.encode_document([{"image": Image.fromarray(one)}])[0] for one in noise]
    assert images.shape == (3, 24) and np.allclose(images, np.stack(wanted), atol=1e-5)
    assert (images @ images.T)[~np.eye(3, dtype=bool)].max() < 0.999


def test_other_prompts_and_the_fingerprint(folder: Path) -> None:
    names = ["", "?query_prompt=", "?document_prompt=", "?query_prompt=find the photo: "]
    loaded = {name: load(folder, name) for name in names}
    assert len({encoder.fingerprint for encoder in loaded.values()}) == len(names)
    bare, own = loaded["?query_prompt="], loaded["?query_prompt=find the photo: "]
    asked = own.encode_queries(TEXTS)
    assert np.allclose(asked, bare.encode_queries([f"find the photo: {text}" for text in TEXTS]), atol=1e-5)
    assert np.array_equal(own.encode_texts(TEXTS), loaded[""].encode_texts(TEXTS))


def test_a_model_of_texts_alone_says_what_to_take(tmp_path: Path) -> None:
    encoder = load(make_gemma(tmp_path, pictures=False))
    assert encoder.encode_texts(TEXTS).shape == (3, 24)
    with pytest.raises(EncoderError, match=r"whole embeds text, and no images: take an encoder of both \(`brivl-se"):
        encoder.warm_up()


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    for settings, message in (
        ("?query_prompt=nothing", r"no prompt 'nothing' for query_prompt \(document, query\)"),
        ("?walk=long", "reads all texts in one way: leave out walk"),
        ("?patches=9", "takes pictures of one size: leave out patches"),
    ):
        with pytest.raises(UsageError, match=message):
            load(folder, settings)
    unknown = shutil.copytree(folder, tmp_path / "unknown")
    edit_json(unknown / "config.json", model_type="embedding_gemma9")
    with pytest.raises(EncoderError, match=r"transformers \(.*\) has no model of type 'embedding_gemma9': upgrade"):
        load(unknown)
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9000])
    with pytest.raises(EncoderError, match="cut cannot be loaded by sentence-transformers: "):
        load(cut)
    poolless = shutil.copytree(folder, tmp_path / "poolless")
    shutil.rmtree(poolless / "1_Pooling")
    with pytest.raises(EncoderError, match="poolless cannot be loaded by sentence-transformers: "):
        load(poolless)
